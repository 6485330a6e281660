"""SQL that plans are made of: each is true to its type, or NULL, and never raises, whatever the row holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BLANKS: Final = r"E' \t\n\x0B\x0C\r'"
"""The six blanks of ASCII, as an SQL literal; ``btrim`` alone takes only the space."""


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def word(expression: str) -> str:
    """Return SQL for a legacy word as it is compared: without blanks around it, A to Z as a to z.

    Other letters stay as they are, whatever the collation of the database says about them.

    Args:
        expression: SQL of a text type.
    """
    return f'lower({trimmed(expression)} COLLATE "C")'


def trimmed(expression: str) -> str:
    """Return SQL for a text without blanks around it."""
    return f"btrim({expression}, {BLANKS})"


def mapped(expression: str, mapping: Mapping[str, str]) -> str:
    """Return SQL for a total map from words to words; NULL for a word that is not in it.

    Args:
        expression: SQL of a text type, e.g. from ``word``.
        mapping: what each word becomes.
    """
    cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in mapping.items())
    return f"CASE {expression} {cases} END"


def utc(expression: str) -> str:
    """Return SQL for a naive timestamp from a clock in UTC as a moment (ADR 1).

    Args:
        expression: SQL of the type ``timestamp``.
    """
    return f"(({expression}) AT TIME ZONE 'UTC')"


def day_of(expression: str) -> str:
    """Return SQL for the day that a text means, if it is YYYY-MM-DD and such a day exists, else NULL.

    A cast would raise for 2024-02-30, and read 01/02/2024 as the session's ``datestyle`` says.

    Args:
        expression: SQL of the type ``text``.
    """
    year, month, day = (
        f"substr({expression}, 1, 4)::int",
        f"substr({expression}, 6, 2)::int",
        f"substr({expression}, 9, 2)::int",
    )
    last = f"extract(day FROM make_date({year}, {month}, 1) + interval '1 month - 1 day')"
    return (
        rf"CASE WHEN {expression} ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$' "
        f"THEN CASE WHEN {year} >= 1 AND {month} BETWEEN 1 AND 12 "
        f"THEN CASE WHEN {day} BETWEEN 1 AND {last} "
        f"THEN make_date({year}, {month}, {day}) END END END"
    )


def json_of(expression: str, schema: str | None) -> str:
    """Return SQL for a jsonb, json or text column as jsonb; NULL where it cannot be read as that.

    Args:
        expression: SQL of one of the three types.
        schema: where the library's own tables and functions are.
    """
    prefix = f'"{schema}".' if schema else ""
    return f"{prefix}tasktrail_jsonb({expression})"
