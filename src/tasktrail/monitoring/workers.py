"""Who works on what, as the rows tell it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Select, func, select

from tasktrail.guards import Model, in_state, table_of
from tasktrail.models import built_once
from tasktrail.monitoring.windows import Source
from tasktrail.registry import Domain
from tasktrail.states import Status

NEWEST_ENDED: Final = 5_000
"""How many of the rows that ended last are looked at, in each domain."""


@dataclass(frozen=True, slots=True)
class WorkerActivity:
    """What one worker process does, and did lately.

    Attributes:
        worker: its name, as it stands in the rows.
        processing: rows it has now.
        completed: rows it completed of those that ended lately.
        failed: rows it failed of those that ended lately.
        domains: the domains of these rows.
        seen_at: its newest heartbeat or ending.
    """

    worker: str
    processing: int
    completed: int
    failed: int
    domains: tuple[str, ...]
    seen_at: datetime


def workers(db: Source, domains: Iterable[Domain]) -> list[WorkerActivity]:
    """Return the activity of each worker that has rows now, or ended some of the last ones of a domain.

    Args:
        db: what to read from.
        domains: the domains to look at.

    Returns:
        One entry per worker process, by name.
    """
    found: dict[str, WorkerActivity] = {}
    for domain in domains:
        for row in db.execute(_activity(domain.model)):
            seen_at = row.seen_at.astimezone(UTC)
            there = found.get(row.worker) or WorkerActivity(row.worker, 0, 0, 0, (), seen_at)
            found[row.worker] = replace(
                there,
                processing=there.processing + row.processing,
                completed=there.completed + row.completed,
                failed=there.failed + row.failed,
                domains=(*there.domains, domain.name),
                seen_at=max(there.seen_at, seen_at),
            )
    return [found[name] for name in sorted(found)]


@built_once
def _activity(model: Model) -> Select[Any]:
    """Select what each worker has and ended lately."""
    table = table_of(model)
    ended = (
        select(table.c.worker, table.c.status, table.c.completed_at.label("seen_at"))
        .where(table.c.completed_at.is_not(None))
        .order_by(table.c.completed_at.desc())
        .limit(NEWEST_ENDED)
    )
    running = select(
        table.c.worker,
        table.c.status,
        func.coalesce(table.c.heartbeat_at, table.c.started_at).label("seen_at"),
    ).where(in_state(table, Status.PROCESSING))
    rows = running.union_all(ended.subquery().select()).subquery()
    return (
        select(
            rows.c.worker,
            func.count().filter(rows.c.status == Status.PROCESSING).label("processing"),
            func.count().filter(rows.c.status == Status.COMPLETED).label("completed"),
            func.count().filter(rows.c.status == Status.FAILED).label("failed"),
            func.max(rows.c.seen_at).label("seen_at"),
        )
        .where(rows.c.worker.is_not(None), rows.c.seen_at.is_not(None))
        .group_by(rows.c.worker)
    )
