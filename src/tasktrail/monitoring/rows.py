"""Rows, and one with all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy

from tasktrail.errors import TrackingNotFound
from tasktrail.fields import domain_columns
from tasktrail.guards import table_of, this_row
from tasktrail.monitoring.windows import Source
from tasktrail.prerequisites import Prerequisite, TrackingRef, dependents_of, prerequisites_of
from tasktrail.registry import Domain
from tasktrail.states import Status
from tasktrail.tracker.reading import select_all


@dataclass(frozen=True, slots=True)
class Row:
    """One tracking row.

    Attributes:
        domain: the domain's name.
        id: the row.
        status: its state.
        created_at: when it was added.
        updated_at: when it was written last.
        started_at: when its last attempt was claimed.
        completed_at: when it ended.
        due_at: the due time of its last or next attempt; ``None`` while it is held.
        attempts: failed attempts.
        max_attempts: how many it may take.
        worker: who has it or had it last.
        error: its error, whole.
        celery_task_id: id of its Celery message.
        dispatched_at: when that went out last.
        heartbeat_at: when its lease was renewed last.
        fields: its domain columns.
    """

    domain: str
    id: int
    status: Status
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    due_at: datetime | None
    attempts: int
    max_attempts: int
    worker: str | None
    error: str | None
    celery_task_id: str | None
    dispatched_at: datetime | None
    heartbeat_at: datetime | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that did not complete, as the row's log has it.

    Attributes:
        number: which it was, from 1.
        start: when it was claimed; ``None`` where that is unknown.
        end: when it ended.
        outcome: ``error``, ``lost``, ``timeout``, ``cancelled`` or ``superseded``.
        error: "Class: message", or a reason.
        worker: who ran it.
    """

    number: int
    start: datetime | None
    end: datetime
    outcome: str
    error: str
    worker: str | None

    @property
    def seconds(self) -> float | None:
        """How long it ran."""
        return (self.end - self.start).total_seconds() if self.start else None


@dataclass(frozen=True, slots=True)
class Details:
    """One row with all that is known of it.

    Attributes:
        row: the row.
        log: its attempts that did not complete, the oldest first; the newest 50 are kept.
        prerequisites: the rows it waits or waited for.
        dependents: the rows that wait or waited for it.
        progress: what is done and how much there is to do; ``None`` for a domain that does not say.
    """

    row: Row
    log: tuple[Attempt, ...]
    prerequisites: tuple[Prerequisite, ...]
    dependents: tuple[TrackingRef, ...]
    progress: tuple[int, int] | None


def details(db: Source, domain: Domain, tracking_id: int, *, schema: str | None) -> Details:
    """Return one row with its attempts and prerequisites.

    Args:
        db: what to read from.
        domain: the domain.
        tracking_id: the row.
        schema: where the library's own tables are.

    Raises:
        TrackingNotFound: there is no such row.
    """
    model = domain.model
    found = None
    if 0 <= tracking_id < 2**63:
        found = db.execute(
            select_all(model).where(this_row(table_of(model))), {"_row_id": tracking_id}
        ).first()
    if found is None:
        raise TrackingNotFound(domain.name, tracking_id)
    progress = model.__tracking__.progress
    return Details(
        row=row_of(domain, found),
        log=tuple(_attempt(entry) for entry in found.attempt_log),
        prerequisites=tuple(prerequisites_of(db, model, schema, tracking_id)),
        dependents=tuple(dependents_of(db, schema, TrackingRef(domain.name, tracking_id))),
        progress=(getattr(found, progress.done), getattr(found, progress.total)) if progress else None,
    )


def row_of(domain: Domain, row: sqlalchemy.Row[Any]) -> Row:
    """Make a row of all columns of a domain."""
    values = row._asdict()
    return Row(
        domain=domain.name,
        id=row.id,
        status=Status(row.status),
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        due_at=row.next_attempt_at,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        worker=row.worker,
        error=row.error_message,
        celery_task_id=row.celery_task_id,
        dispatched_at=row.dispatched_at,
        heartbeat_at=row.heartbeat_at,
        fields={name: values[name] for name in domain_columns(domain.model)},
    )


def _attempt(entry: Mapping[str, Any]) -> Attempt:
    start = entry.get("start")
    return Attempt(
        number=entry["number"],
        start=datetime.fromisoformat(start).astimezone(UTC) if start else None,
        end=datetime.fromisoformat(entry["end"]).astimezone(UTC),
        outcome=entry["outcome"],
        error=entry["error"],
        worker=entry.get("worker"),
    )
