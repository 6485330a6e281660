"""Rows that should have moved on: the oldest that waits, stuck ones, overdue ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Interval, func, select

from tasktrail.guards import in_state, table_of
from tasktrail.monitoring.reading import CappedCount, count_at_most
from tasktrail.monitoring.rows import Row, row_of
from tasktrail.monitoring.windows import Source
from tasktrail.registry import Domain
from tasktrail.states import Status
from tasktrail.tracker.reading import select_all

MOST_LATE: Final = 10_000
"""How far late rows are counted."""


@dataclass(frozen=True, slots=True)
class OldestPending:
    """The row that is due for longest without a worker having taken it.

    Attributes:
        id: the row.
        due_at: since when.
        seconds: for how long.
    """

    id: int
    due_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class LateRows:
    """Rows that should have moved on.

    Attributes:
        count: how many there are.
        rows: the latest of them, the latest first.
    """

    count: CappedCount
    rows: tuple[Row, ...]


def oldest_pending(db: Source, domain: Domain) -> OldestPending | None:
    """Return the PENDING row that is due for longest; ``None`` when none is due."""
    table = table_of(domain.model)
    found = db.execute(
        select(
            table.c.id,
            table.c.next_attempt_at,
            func.extract("epoch", func.now() - table.c.next_attempt_at).label("seconds"),
        )
        .where(in_state(table, Status.PENDING), table.c.next_attempt_at <= func.now())
        .order_by(table.c.next_attempt_at)
        .limit(1)
    ).first()
    return None if found is None else OldestPending(found.id, found.next_attempt_at, float(found.seconds))


def stuck(db: Source, domain: Domain, *, lease: float, limit: int = 20) -> LateRows:
    """Return PROCESSING rows whose lease ran out; maintenance has not rescued them yet.

    Args:
        db: what to read from.
        domain: the domain.
        lease: how old a heartbeat may be, in seconds; that of the settings.
        limit: how many rows to return.
    """
    table = table_of(domain.model)
    guard = (in_state(table, Status.PROCESSING), table.c.heartbeat_at < _ago(lease))
    return _late(db, domain, guard, table.c.heartbeat_at, limit)


def overdue(db: Source, domain: Domain, *, bound: float, limit: int = 20) -> LateRows:
    """Return PENDING rows that are due for longer than they should be.

    Args:
        db: what to read from.
        domain: the domain.
        bound: for how long a row may be due, in seconds.
        limit: how many rows to return.
    """
    table = table_of(domain.model)
    guard = (in_state(table, Status.PENDING), table.c.next_attempt_at < _ago(bound))
    return _late(db, domain, guard, table.c.next_attempt_at, limit)


def _ago(seconds: float) -> ColumnElement[datetime]:
    interval: ColumnElement[object] = func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=Interval())
    return func.now() - interval


def _late(
    db: Source,
    domain: Domain,
    guard: tuple[ColumnElement[bool], ...],
    since: ColumnElement[datetime],
    limit: int,
) -> LateRows:
    table = table_of(domain.model)
    count = count_at_most(db, select(table.c.id).where(*guard), MOST_LATE)
    rows = db.execute(select_all(domain.model).where(*guard).order_by(since).limit(limit))
    return LateRows(count, tuple(row_of(domain, row) for row in rows))
