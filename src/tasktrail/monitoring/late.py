"""Rows that should have moved on: the oldest that waits, stuck ones, overdue ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Double,
    Interval,
    Label,
    Select,
    Table,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)

from tasktrail.guards import Model, in_state, table_of
from tasktrail.models import built_once
from tasktrail.monitoring.reading import CappedCount, count_at_most
from tasktrail.monitoring.rows import Row, row_of
from tasktrail.monitoring.windows import Source
from tasktrail.registry import Domain
from tasktrail.states import Status
from tasktrail.tracker.reading import select_all

Seconds: TypeAlias = float | ColumnElement[float]

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
    return oldest_pending_of(db, [domain])[0]


def oldest_pending_of(db: Source, domains: Sequence[Domain]) -> list[OldestPending | None]:
    """Return the PENDING row of each domain that is due for longest, in one statement."""
    found: list[OldestPending | None] = [None for _ in domains]
    if domains:
        for at, tracking_id, due_at, seconds in db.execute(_oldest(tuple(one.model for one in domains))):
            found[at] = OldestPending(tracking_id, due_at, float(seconds))
    return found


@built_once
def _oldest(models: tuple[Model, ...]) -> CompoundSelect[Any]:
    """Select the PENDING row of each domain that is due for longest."""
    return union_all(*(_oldest_of(at, table_of(model)) for at, model in enumerate(models)))


def _oldest_of(at: int, table: Table) -> Select[Any]:
    query = (
        select(table.c.id, table.c.next_attempt_at)
        .where(in_state(table, Status.PENDING), table.c.next_attempt_at <= func.now())
        .order_by(table.c.next_attempt_at)
        .limit(1)
    ).subquery()
    waited = func.extract("epoch", func.now() - query.c.next_attempt_at)
    return select(literal_column(str(at)), query.c.id, query.c.next_attempt_at, waited)


def late_counts(
    db: Source, domains: Sequence[Domain], *, lease: float, bound: float
) -> list[tuple[CappedCount, CappedCount]]:
    """Count the rows that ``stuck`` and ``overdue`` would return, of each domain, in one statement.

    Args:
        db: what to read from.
        domains: the domains.
        lease: how old a heartbeat may be, in seconds.
        bound: for how long a row may be due, in seconds.
    """
    models = tuple(domain.model for domain in domains)
    counts = db.execute(_late_counts(models), {"lease": lease, "bound": bound}).one()
    capped = [CappedCount(min(count, MOST_LATE), is_more=count > MOST_LATE) for count in counts]
    return list(zip(capped[::2], capped[1::2], strict=True))


@built_once
def _late_counts(models: tuple[Model, ...]) -> Select[Any]:
    """Count stuck and overdue rows of each domain; parameters: ``lease`` and ``bound``, in seconds."""

    def counted(guard: tuple[ColumnElement[bool], ...], table: Table, name: str) -> Label[int]:
        first = select(table.c.id).where(*guard).limit(MOST_LATE + 1).subquery()
        return select(func.count()).select_from(first).scalar_subquery().label(name)

    lease: Seconds = bindparam("lease", type_=Double())
    bound: Seconds = bindparam("bound", type_=Double())
    columns: list[ColumnElement[Any]] = []
    for at, table in enumerate(map(table_of, models)):
        columns.append(counted(_is_stuck(table, lease), table, f"stuck_{at}"))
        columns.append(counted(_is_overdue(table, bound), table, f"overdue_{at}"))
    query: Select[Any] = select(*columns)
    return query


def stuck(db: Source, domain: Domain, *, lease: float, limit: int = 20) -> LateRows:
    """Return PROCESSING rows whose lease ran out; maintenance has not rescued them yet.

    Args:
        db: what to read from.
        domain: the domain.
        lease: how old a heartbeat may be, in seconds; that of the settings.
        limit: how many rows to return.
    """
    table = table_of(domain.model)
    return _late(db, domain, _is_stuck(table, lease), table.c.heartbeat_at, limit)


def overdue(db: Source, domain: Domain, *, bound: float, limit: int = 20) -> LateRows:
    """Return PENDING rows that are due for longer than they should be.

    Args:
        db: what to read from.
        domain: the domain.
        bound: for how long a row may be due, in seconds.
        limit: how many rows to return.
    """
    table = table_of(domain.model)
    return _late(db, domain, _is_overdue(table, bound), table.c.next_attempt_at, limit)


def _is_stuck(table: Table, lease: Seconds) -> tuple[ColumnElement[bool], ...]:
    return in_state(table, Status.PROCESSING), table.c.heartbeat_at < _ago(lease)


def _is_overdue(table: Table, bound: Seconds) -> tuple[ColumnElement[bool], ...]:
    return in_state(table, Status.PENDING), table.c.next_attempt_at < _ago(bound)


def _ago(seconds: Seconds) -> ColumnElement[datetime]:
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
    rows = db.execute(select_all(domain.model).where(*guard).order_by(since).limit(limit)).all()
    if len(rows) < limit:
        count = CappedCount(len(rows))
    else:
        count = count_at_most(db, select(table.c.id).where(*guard), MOST_LATE)
    return LateRows(count, tuple(row_of(domain, row) for row in rows))
