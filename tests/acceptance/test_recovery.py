"""Work that its worker did not finish: killed, timed out, crashed, or never sent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from conftest import MakeDatabase
from tasktrail import Enqueued, Status, TrackedTask
from tests.acceptance.conftest import Live, live
from tests.waiting import until

BOTH = pytest.mark.parametrize("kind", ["job", "async_job"])


@pytest.fixture(scope="module")
def brisk(
    make_database: MakeDatabase,
    library_template: str,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    """A live prefork worker with quick maintenance and the usual lease of a minute."""
    folder = tmp_path_factory.mktemp("recovery")
    with (
        live(make_database(library_template), redis_url, folder.name, folder) as found,
        found.worker(heartbeat_interval=0.2, maintenance_interval=0.1),
    ):
        yield found


def row_of(live: Live, job: Enqueued) -> Any:
    model = live.tasks.trail.registry.get(job.domain).model
    with Session(live.engine) as db:
        return db.get_one(model, job.id)


def ended(live: Live, job: Enqueued, seconds: float = 30) -> Any:
    def row() -> Any:
        found = row_of(live, job)
        return found if Status(found.status).is_ended else None

    return until(row, seconds=seconds)


def outcomes(row: Any) -> list[tuple[int, str]]:
    return [(entry["number"], entry["outcome"]) for entry in row.attempt_log]


def held(live: Live, kind: str, payload: str = "hold", **options: Any) -> tuple[Enqueued, int]:
    task: TrackedTask[Any] = getattr(live.tasks, kind)
    job = task.enqueue(payload=payload)
    told = until(lambda: live.told(job))
    return job, int(told[0].removeprefix("pid "))


@BOTH
def test_kill_child(brisk: Live, kind: str) -> None:
    import time

    job, pid = held(brisk, kind)
    t = time.time()
    os.kill(pid, signal.SIGKILL)
    until(lambda: row_of(brisk, job).attempts == 1)
    print("noticed after", time.time() - t)
    brisk.let_go(job)
    row = ended(brisk, job)
    print(row.status, row.attempt_log, time.time() - t)
    assert 0


@BOTH
@pytest.mark.parametrize("limits", [{"time_limit": 1}, {"soft_time_limit": 1}])
def test_limits(brisk: Live, kind: str, limits) -> None:
    task: TrackedTask[Any] = getattr(brisk.tasks, kind)
    for _ in range(3):
        from tasktrail import tracker

        with brisk.engine.begin() as db:
            row = tracker.create(db, task.domain.model, {"payload": "hold"})
            tracker.mark_dispatched(db, task.domain.model, [row.id])
        task.celery_task.apply_async(args=(row.id,), task_id=row.celery_task_id, **limits)
        job = Enqueued(task.domain.name, row.id, row.outcome, row.status, row.celery_task_id)
        until(lambda: row_of(brisk, job).attempts == 1)
        brisk.let_go(job)
        r = ended(brisk, job)
        print(r.status, r.attempts, r.attempt_log, r.error_message, brisk.told(job))
    assert 0


@BOTH
def test_revoke_running(brisk: Live, kind: str) -> None:
    for _ in range(5):
        job, pid = held(brisk, kind)
        brisk.tasks.trail.app.control.revoke(job.celery_task_id, terminate=True)
        r = ended(brisk, job)
        print(r.status, r.attempts, r.attempt_log, r.error_message, brisk.told(job))
    assert 0


@pytest.mark.parametrize("payload", ["exit", "interrupt", "out of memory", "kill"])
@BOTH
def test_poison(brisk: Live, kind: str, payload) -> None:
    task: TrackedTask[Any] = getattr(brisk.tasks, kind)
    job = task.enqueue(payload=payload)
    try:
        r = ended(brisk, job, 20)
    except AssertionError:
        r = row_of(brisk, job)
    print(r.status, r.attempts, r.attempt_log, r.error_message, brisk.told(job))
    assert 0
