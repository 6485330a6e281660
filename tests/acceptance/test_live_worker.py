"""Tracked tasks in a live ``celery worker`` process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tasktrail import BaseTaskTracking, Status, TrackedTask
from tests.acceptance.conftest import Live
from tests.support import AsyncJobTracking, Effect, JobTracking
from tests.waiting import until

BOTH = pytest.mark.parametrize("kind", ["job", "async_job"])


def all_ended(live: Live, model: type[BaseTaskTracking], payload: str, total: int) -> Counter[str]:
    """Wait until so many rows with a payload have ended, and return the counts by state."""

    def counts() -> Counter[str] | None:
        query = select(model.status, func.count()).where(model.payload == payload).group_by(model.status)
        with Session(live.engine) as db:
            found = Counter(dict(db.execute(query).all()))
        return found if sum(found[status] for status in Status if status.is_ended) >= total else None

    return until(counts, seconds=60)


def one_ended(live: Live, task: TrackedTask[Any], tracking_id: int) -> Any:
    """Wait until a row has ended, and return it."""

    def row() -> Any:
        with Session(live.engine) as db:
            found: Any = db.get(task.domain.model, tracking_id)
            return found if Status(found.status).is_ended else None

    return until(row)


def effects(live: Live, ids: Iterable[int]) -> list[int]:
    """Return the jobs, of those given, whose side effect is there, once for each time it happened."""
    with Session(live.engine) as db:
        return list(db.scalars(select(Effect.job_id).where(Effect.job_id.in_(ids)).order_by(Effect.job_id)))


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_def_and_async_def_run_under_the_other_pools_too(fresh: Live, pool: str) -> None:
    with fresh.worker(pool):
        fresh.tasks.job.enqueue_many({"payload": "effect"} for _ in range(20))
        fresh.tasks.async_job.enqueue_many({"payload": "effect"} for _ in range(20))

        assert all_ended(fresh, JobTracking, "effect", 20) == {"COMPLETED": 20}
        assert all_ended(fresh, AsyncJobTracking, "effect", 20) == {"COMPLETED": 20}

    assert len(effects(fresh, range(1, 21))) == 40


def test_a_thousand_tracked_tasks_all_complete_without_a_failed_attempt(prefork: Live) -> None:
    prefork.tasks.job.enqueue_many({"payload": "nothing"} for _ in range(500))
    prefork.tasks.async_job.enqueue_many({"payload": "nothing"} for _ in range(500))

    for model in (JobTracking, AsyncJobTracking):
        assert all_ended(prefork, model, "nothing", 500) == {"COMPLETED": 500}
        with Session(prefork.engine) as db:
            attempts = select(model.attempts).where(model.payload == "nothing").distinct()
            assert db.scalars(attempts).all() == [0]


def test_coroutines_share_one_event_loop_for_the_life_of_a_worker_process(prefork: Live) -> None:
    prefork.tasks.async_job.enqueue_many({"payload": "note"} for _ in range(40))
    all_ended(prefork, AsyncJobTracking, "note", 40)

    with Session(prefork.engine) as db:
        query = select(AsyncJobTracking.error_message).where(AsyncJobTracking.payload == "note")
        notes = {note for note in db.scalars(query) if note}
    processes = {note.split(",")[0] for note in notes}
    assert len(notes) == len(processes) == 2


@BOTH
def test_a_failed_attempt_is_logged_and_retried_by_celery(prefork: Live, kind: str) -> None:
    task: TrackedTask[Any] = getattr(prefork.tasks, kind)

    row = one_ended(prefork, task, task.enqueue(payload="fail once").id)

    assert (row.status, row.attempts, row.error_message) == ("COMPLETED", 1, None)
    assert [(entry["number"], entry["outcome"], entry["error"]) for entry in row.attempt_log] == [
        (1, "error", "ValueError: not yet")
    ]


@BOTH
@pytest.mark.parametrize(
    ("payload", "attempts", "message"),
    [("fail", 3, "ValueError: no luck"), ("give up", 1, "GiveUp: pointless")],
)
def test_a_job_that_keeps_failing_or_gives_up_is_failed(
    prefork: Live, kind: str, payload: str, attempts: int, message: str
) -> None:
    task: TrackedTask[Any] = getattr(prefork.tasks, kind)

    row = one_ended(prefork, task, task.enqueue(payload=payload).id)

    assert (row.status, row.attempts, row.error_message) == ("FAILED", attempts, message)
    assert [entry["number"] for entry in row.attempt_log] == list(range(1, attempts + 1))


@BOTH
def test_what_an_attempt_wrote_in_its_session_is_there_once_if_it_completed(prefork: Live, kind: str) -> None:
    task: TrackedTask[Any] = getattr(prefork.tasks, kind)
    before = len(effects(prefork, [1000 + (kind == "job")]))

    row = one_ended(prefork, task, task.enqueue(payload="effect").id)

    assert (row.status, before) == ("COMPLETED", 0)
    assert row.id in effects(prefork, [row.id])


@BOTH
def test_what_a_failed_attempt_wrote_in_its_session_is_rolled_back(fresh: Live, kind: str) -> None:
    task: TrackedTask[Any] = getattr(fresh.tasks, kind)
    with fresh.worker("solo"):
        row = one_ended(fresh, task, task.enqueue(payload="effect then error").id)

    assert row.status == "FAILED"
    assert effects(fresh, [row.id]) == []


def test_an_error_can_say_when_it_wants_to_be_retried(prefork: Live) -> None:
    row = one_ended(prefork, prefork.tasks.job, prefork.tasks.job.enqueue(payload="retry in").id)

    assert (row.status, row.attempts) == ("COMPLETED", 1)


def test_a_retry_beyond_the_horizon_stays_in_postgresql_and_not_in_the_broker(prefork: Live) -> None:
    enqueued = prefork.tasks.job.enqueue(payload="far")

    def failed_once() -> Any:
        with Session(prefork.engine) as db:
            found = db.get_one(JobTracking, enqueued.id)
            return found if found.attempts == 1 else None

    waiting = until(failed_once)

    assert (waiting.status, waiting.dispatched_at) == ("PENDING", None)


def test_a_doubled_message_runs_its_job_once(prefork: Live) -> None:
    enqueued = prefork.tasks.job.enqueue(payload="effect")
    for _ in range(5):
        prefork.tasks.job.celery_task.apply_async(args=(enqueued.id,))
    one_ended(prefork, prefork.tasks.job, enqueued.id)
    for _ in range(4):  # behind the doubles in the queue, for each of the two processes
        one_ended(prefork, prefork.tasks.job, prefork.tasks.job.enqueue().id)

    with Session(prefork.engine) as db:
        row = db.get_one(JobTracking, enqueued.id)
    assert (row.status, row.attempts, row.attempt_log) == ("COMPLETED", 0, [])


def test_a_message_that_comes_before_its_time_waits_for_the_due_time(prefork: Live) -> None:
    with Session(prefork.engine) as db:
        soon = db.scalar(select(func.now() + func.make_interval(0, 0, 0, 0, 0, 0, 1.0)))
    enqueued = prefork.tasks.job.enqueue(next_attempt_at=soon)
    prefork.tasks.job.celery_task.apply_async(args=(enqueued.id,))

    row = one_ended(prefork, prefork.tasks.job, enqueued.id)

    assert row.status == "COMPLETED"
    assert row.started_at >= row.next_attempt_at
