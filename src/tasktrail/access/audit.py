"""The audit: one line for each write from outside, committed together with what it is about."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from tasktrail.access.tables import audit
from tasktrail.masking import mask_value
from tasktrail.tracker import Database


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit.

    Attributes:
        id: its number.
        happened_at: when.
        who: the name of the token, or user@host for the command line.
        what: e.g. ``retry``.
        domain: the domain it was about.
        tracking_id: the row it was about.
        filter: the rows it was about.
        count: how many rows were meant.
        details: what else is worth knowing.
    """

    id: int
    happened_at: datetime
    who: str
    what: str
    domain: str | None
    tracking_id: int | None
    filter: Mapping[str, Any] | None
    count: int | None
    details: Mapping[str, Any]


def note(
    db: Database,
    schema: str | None,
    who: str,
    what: str,
    *,
    domain: str | None = None,
    tracking_id: int | None = None,
    chosen: Mapping[str, Any] | None = None,
    count: int | None = None,
    **details: Any,
) -> None:
    """Write a line, in the transaction of what it is about; what looks like a secret is masked.

    Args:
        db: session or connection; the caller commits.
        schema: where the library's own tables are.
        who: the name of the token, or user@host.
        what: what was done, a word or two.
        domain: the domain it is about.
        tracking_id: the row it is about.
        chosen: the rows it is about, as JSON.
        count: how many rows are meant.
        **details: what else is worth knowing, as JSON.
    """
    values = {
        "who": who,
        "what": what,
        "domain": domain,
        "tracking_id": tracking_id,
        "filter": mask_value(chosen),
        "count": count,
        "details": mask_value(details),
    }
    db.execute(insert(audit(schema)).values(**values))


def newest(db: Database, schema: str | None, *, before: int | None = None, limit: int = 50) -> list[Entry]:
    """Return lines of the audit, the newest first.

    Args:
        db: session or connection.
        schema: where the library's own tables are.
        before: only lines older than this one.
        limit: how many at most.
    """
    table = audit(schema)
    query = select(*table.columns).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.id < before)
    return [Entry(**row._asdict()) for row in db.execute(query)]


def whoever() -> str:
    """Return who runs this, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
