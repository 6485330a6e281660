"""What it means when the database ends a step, and how to go on, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

import psycopg

from tasktrail.errors import DatabaseUnavailable, StepInterrupted

CAUSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "25006": "this server takes no writes; name the primary in TASKTRAIL_DATABASE_URL",
        "40001": "others wrote to the same rows again and again",
        "40P01": "others wrote to the same rows again and again",
        "42501": "this role lacks a right; grant it, `tasktrail migrate plan` names all that are missing",
        "42703": "a column was dropped or renamed under way; `tasktrail migrate plan` says what does not fit",
        "42P10": "the unique index of the new table is missing or INVALID; build it again",
        "42P01": "a table was dropped or renamed under way; `tasktrail migrate plan` says what does not fit",
        "53100": "the disk of the database is full; make room on it",
        "53200": "the database has no memory left",
        "53300": "the database takes no more connections; close some, or raise max_connections",
        "57014": "the statement was cancelled, by a person or by statement_timeout",
    }
)
"""SQLSTATE, of PostgreSQL's appendix A -> what it comes from, and what to do about it."""

PASSING: Final = (DatabaseUnavailable, psycopg.OperationalError)
"""What goes by itself, or without anything being done to the migration: outages, full disks, conflicts."""


def cause_of(error: Exception) -> str:
    """Return what happened in one line, and what to do about it where that is known."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    cause = CAUSES.get(getattr(error, "sqlstate", None) or "")
    return f"{lines[0]} ({cause})" if cause else lines[0]


@contextmanager
def explained(command: str) -> Iterator[None]:
    """Turn what the database says when it ends a step into a line that says how to go on.

    Args:
        command: that runs the step again.

    Raises:
        StepInterrupted: in place of the database's error.
    """
    try:
        yield
    except (DatabaseUnavailable, psycopg.Error) as error:
        raise StepInterrupted(command, cause_of(error)) from error
