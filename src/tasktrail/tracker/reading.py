"""Reading rows: detached snapshots, which later writes do not change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, select

from tasktrail import statements
from tasktrail.errors import TrackingNotFound, clean_text
from tasktrail.guards import table_of
from tasktrail.models import BaseTaskTracking
from tasktrail.states import ACTIVE, Status
from tasktrail.tracker.values import Database, Fence, ModelT, Outcome


def get(db: Database, model: type[ModelT], tracking_id: int) -> ModelT:
    """Return a detached snapshot of a row.

    Args:
        db: session or connection.
        model: the domain's model.
        tracking_id: the row.

    Raises:
        TrackingNotFound: there is no such row.
    """
    row = db.execute(select_all(model).where(table_of(model).c.id == tracking_id)).first()
    if row is None:
        raise TrackingNotFound(model.__tracking__.domain, tracking_id)
    return snapshot(model, row)


def find(db: Database, model: type[ModelT], **key: Any) -> ModelT | None:
    """Return a detached snapshot of the row with these values of its natural key, if there is one."""
    there = by_natural_key(db, model, key)
    return None if there is None else get(db, model, there.id)


def by_status(
    db: Database, model: type[ModelT], states: Iterable[Status], *, limit: int | None = None
) -> list[ModelT]:
    """Return detached snapshots of the rows in some states, oldest first.

    Args:
        db: session or connection.
        model: the domain's model.
        states: the states wanted.
        limit: how many rows at most; ``None`` for all.
    """
    table = table_of(model)
    query = select_all(model).where(table.c.status.in_(sorted(states))).order_by(table.c.id).limit(limit)
    return [snapshot(model, row) for row in db.execute(query)]


def active(db: Database, model: type[ModelT], *, limit: int | None = None) -> list[ModelT]:
    """Return detached snapshots of the rows whose work is not finished, oldest first."""
    return by_status(db, model, ACTIVE, limit=limit)


def natural_key_of(model: type[BaseTaskTracking], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of ``fields`` that says which unit of work it is; empty without a natural key."""
    key = model.__tracking__.natural_key
    return {name: fields[name] for name in key.columns} if key else {}


def was_completed_by(db: Database, model: type[BaseTaskTracking], fence: Fence) -> bool:
    """Say whether a row is COMPLETED, and by the attempt with this fence."""
    row = get(db, model, fence.tracking_id)
    found = Fence(row.id, row.attempts, row.celery_task_id, row.started_at or fence.started_at)
    return row.status == Status.COMPLETED and row.started_at is not None and found == fence


def was_failed_by(
    db: Database, model: type[BaseTaskTracking], fence: Fence, *, error: str, outcome: Outcome
) -> bool:
    """Say whether the log of a row has this failure of the attempt with this fence."""
    ours = (fence.attempts + 1, outcome, clean_text(error))
    return any(
        (entry["number"], entry["outcome"], entry["error"]) == ours
        and datetime.fromisoformat(entry["start"] or entry["end"]) == fence.started_at
        for entry in get(db, model, fence.tracking_id).attempt_log
    )


def by_natural_key(db: Database, model: type[BaseTaskTracking], key: Mapping[str, Any]) -> Row[Any] | None:
    """Return id, state and Celery id of the row with a natural key, if there is one."""
    parameters = {f"_key_{name}": value for name, value in key.items()}
    return db.execute(statements.select_by_natural_key(model), parameters).first()


def select_all(model: type[BaseTaskTracking]) -> Select[Any]:
    """Select all columns of a domain."""
    return select(*table_of(model).columns)


def snapshot(model: type[ModelT], row: Row[Any]) -> ModelT:
    """Make a detached instance of a model from a row of all its columns."""
    return model(**row._asdict())
