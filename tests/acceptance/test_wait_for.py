"""Jobs that wait for other jobs, in a live worker: nobody blocks, and each does its work once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tasktrail import Enqueued, Status
from tests.acceptance.conftest import Live
from tests.support import Effect
from tests.waiting import until


def rows(live: Live, domain: str) -> list[Any]:
    """Return all rows of a domain."""
    model: Any = live.tasks.trail.registry.get(domain).model
    with Session(live.engine) as db:
        return list(db.scalars(select(model).order_by(model.id)))


def all_done(live: Live) -> bool:
    return all(Status(row.status).is_ended for domain in ("job", "async_job") for row in rows(live, domain))


@pytest.mark.parametrize(("pool", "concurrency"), [("prefork", 2), ("threads", 2), ("solo", 1)])
def test_more_jobs_wait_than_the_worker_has_places_and_all_come_back(
    fresh: Live, pool: str, concurrency: int
) -> None:
    waiting: list[Enqueued] = [
        task.enqueue(payload="wait") for task in (fresh.tasks.job, fresh.tasks.async_job) for _ in range(4)
    ]
    with fresh.worker(pool, concurrency, maintenance_interval=0.1):
        until(lambda: all_done(fresh), seconds=60)
    with Session(fresh.engine) as db:
        effects = Counter(db.scalars(select(Effect.job_id)))
    found = {(domain, row.id): row for domain in ("job", "async_job") for row in rows(fresh, domain)}

    assert len(found) == 8 + 8 * 3
    assert {(row.status, row.attempts) for row in found.values()} == {("COMPLETED", 0)}
    assert sum(effects.values()) == 8 * 2 + 8 * 3
    for row in waiting:
        needed = fresh.tasks.trail.task_of(row.domain).prerequisites(row.id)
        ends = [found[one.ref.domain, one.ref.id].completed_at for one in needed]
        assert len(ends) == 3
        assert found[row.domain, row.id].started_at >= max(ends)
