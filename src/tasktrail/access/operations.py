"""Operations on many rows, as the database keeps them: what is to be done, for whom, and how far it has come.

Whoever works on one holds a lease on it. Each batch is counted in its own transaction, under the condition
that the operation still runs and is still held: so the count is exact, whoever dies when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, or_, select, update

from tasktrail.access import audit
from tasktrail.access.tables import operations
from tasktrail.errors import clean_text
from tasktrail.guards import CLOCK
from tasktrail.masking import mask_text
from tasktrail.tracker import Database

LEASE: Final = timedelta(seconds=15)
"""Held for longer without a sign of life, an operation is taken up by somebody else."""


class Action(StrEnum):
    """What is done with each row."""

    RETRY = "retry"
    """Started again, if it is FAILED or CANCELLED."""
    CANCEL = "cancel"
    """Cancelled, if it is PENDING or PROCESSING."""


class OperationState(StrEnum):
    """How an operation stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that is done with many rows of one domain.

    Attributes:
        id: its number.
        domain: the domain.
        action: what is done.
        filter: which rows, as the parameters of a query string.
        reason: why they are cancelled.
        rate: rows a second at most; 0 for as many as go.
        who: whose word it was.
        state: how it stands.
        expected: how many rows were meant when it began.
        done: how many were written.
        cursor: the row up to which the present pass has come.
        created_at: when it began.
        as_of: when its rows were counted; what came later, or failed later, is not meant.
        finished_at: when it ended.
        error: why it failed.
    """

    id: int
    domain: str
    action: Action
    filter: Mapping[str, Sequence[str]]
    reason: str | None
    rate: int
    who: str
    state: OperationState
    expected: int
    done: int
    cursor: int
    created_at: datetime
    as_of: datetime
    finished_at: datetime | None
    error: str | None

    @property
    def shown_filter(self) -> dict[str, list[str]]:
        """Which rows, without what looks like a secret; errors are searched without it, too."""
        return {name: [mask_text(text) for text in texts] for name, texts in self.filter.items()}

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self.state is OperationState.RUNNING


COLUMNS: Final = tuple(one.name for one in fields(Operation))


def begin(
    db: Database,
    schema: str | None,
    *,
    domain: str,
    action: Action,
    chosen: Mapping[str, Sequence[str]],
    reason: str | None,
    rate: int,
    who: str,
    expected: int,
    as_of: datetime | None = None,
) -> int:
    """Put an operation down for somebody to work on, and note it in the audit.

    Args:
        db: session or connection; the caller commits.
        schema: where the library's own tables are.
        domain: the domain.
        action: what is done.
        chosen: which rows, as the parameters of a query string.
        reason: why rows are cancelled.
        rate: rows a second at most; 0 for as many as go.
        who: whose word it is.
        expected: how many rows were counted.
        as_of: when they were, by the server's clock; by default now, and never later.

    Returns:
        Its number.
    """
    table = operations(schema)
    values: dict[str, Any] = {
        "domain": domain,
        "action": action.value,
        "filter": dict(chosen),
        "reason": None if reason is None else clean_text(reason),
    }
    if as_of is not None:
        values["as_of"] = func.least(as_of, func.now())
    statement = insert(table).values(**values, rate=rate, who=who, expected=expected).returning(table.c.id)
    number: int = db.execute(statement).scalar_one()
    audit.note(
        db, schema, who, f"{action} many", domain=domain, chosen=chosen, count=expected, operation=number
    )
    return number


def claim(db: Database, schema: str | None, me: UUID) -> Operation | None:
    """Take an operation that nobody works on; ``None`` when there is none."""
    table = operations(schema)
    is_free = or_(table.c.claimed_by.is_(None), table.c.heartbeat_at < CLOCK - LEASE)
    free = (
        select(table.c.id)
        .where(table.c.state == OperationState.RUNNING, is_free)
        .order_by(table.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    statement = update(table).where(table.c.id == free.scalar_subquery())
    row = db.execute(
        statement.values(claimed_by=me, heartbeat_at=CLOCK).returning(*(table.c[name] for name in COLUMNS))
    ).first()
    return None if row is None else _operation(row._asdict())


def advance(db: Database, schema: str | None, number: int, me: UUID, *, done: int, cursor: int) -> bool:
    """Count rows in the transaction that wrote them, and renew the lease.

    Args:
        db: session or connection; the caller commits if this returns true, and else rolls back.
        schema: where the library's own tables are.
        number: the operation.
        me: who works on it.
        done: how many rows were written.
        cursor: the last of them; 0 to begin at the first row again.

    Returns:
        Whether the operation still runs and is still held.
    """
    table = operations(schema)
    statement = update(table).where(*_held(schema, number, me)).returning(table.c.id)
    values = {"done": table.c.done + done, "cursor": cursor, "heartbeat_at": CLOCK}
    return db.execute(statement.values(**values)).first() is not None


def finish(
    db: Database, schema: str | None, number: int, me: UUID, *, error: str | None = None
) -> Operation | None:
    """End an operation that is held, and note in the audit how many rows it wrote."""
    state = OperationState.COMPLETED if error is None else OperationState.FAILED
    return _end(db, schema, _held(schema, number, me), state, error=error)


def stop(db: Database, schema: str | None, number: int, *, who: str) -> Operation | None:
    """Stop an operation that runs; what it wrote stays written. ``None`` when it does not run."""
    table = operations(schema)
    guard = [table.c.id == number, table.c.state == OperationState.RUNNING]
    return _end(db, schema, guard, OperationState.STOPPED, who=who)


def read(db: Database, schema: str | None, number: int) -> Operation | None:
    """Return an operation; ``None`` when there is none of that number."""
    table = operations(schema)
    row = db.execute(_select(schema).where(table.c.id == number)).first()
    return None if row is None else _operation(row._asdict())


def newest(
    db: Database, schema: str | None, *, before: int | None = None, limit: int = 50
) -> list[Operation]:
    """Return operations, the newest first.

    Args:
        db: session or connection.
        schema: where the library's own tables are.
        before: only those older than this one.
        limit: how many at most.
    """
    table = operations(schema)
    query = _select(schema).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.id < before)
    return [_operation(row._asdict()) for row in db.execute(query)]


def pulse(db: Database, schema: str | None) -> tuple[int, int, int]:
    """Return how many operations run, how many rows they wrote, and the newest: changes as they do."""
    table = operations(schema)
    query = select(func.count(), func.sum(table.c.done), func.max(table.c.id))
    running, done, newest = db.execute(query.where(table.c.state == OperationState.RUNNING)).one()
    return int(running), int(done or 0), int(newest or 0)


def _select(schema: str | None) -> Any:
    table = operations(schema)
    return select(*(table.c[name] for name in COLUMNS))


def _held(schema: str | None, number: int, me: UUID) -> list[ColumnElement[bool]]:
    table = operations(schema)
    return [table.c.id == number, table.c.state == OperationState.RUNNING, table.c.claimed_by == me]


def _end(
    db: Database,
    schema: str | None,
    guard: Sequence[ColumnElement[bool]],
    state: OperationState,
    *,
    error: str | None = None,
    who: str | None = None,
) -> Operation | None:
    table = operations(schema)
    statement = update(table).where(*guard).returning(*(table.c[name] for name in COLUMNS))
    row = db.execute(statement.values(state=state.value, finished_at=func.now(), error=error)).first()
    if row is None:
        return None
    ended = _operation(row._asdict())
    audit.note(
        db,
        schema,
        who or ended.who,
        f"{ended.action} many: {state}",
        domain=ended.domain,
        chosen=ended.filter,
        count=ended.done,
        operation=ended.id,
    )
    return ended


def _operation(row: Mapping[str, Any]) -> Operation:
    return Operation(**{**row, "action": Action(row["action"]), "state": OperationState(row["state"])})
