"""One message in a worker: answers of the database that get lost, and bodies that speak Celery's language."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry as CeleryRetry
from sqlalchemy import Engine, text

from tasktrail import (
    DatabaseUnavailable,
    GiveUp,
    RetryPolicy,
    Settings,
    TrackedTask,
    Trail,
    counters,
    tracker,
)
from tasktrail.engines import Durability
from tasktrail.retry import Retry
from tests.rows import add_job, claim, columns
from tests.support import SCHEMA, AsyncJobTracking, AsyncJobTrackingService, JobTracking, JobTrackingService

MANY = 40


class Worker:
    """What a worker process does with messages, without the process."""

    def __init__(self, trail: Trail, engine: Engine) -> None:
        self.trail = trail
        self.engine = engine
        self.ran: list[int] = []
        self.body: Callable[[Any], Any] = lambda _: None
        self.coroutine: Callable[[Any], Any] = lambda _: asyncio.sleep(0)
        retry = RetryPolicy(max_attempts=2, base=0.001)
        self.job: TrackedTask[JobTracking] = trail.task(JobTrackingService, name="tests.job", retry=retry)(
            self._job
        )
        self.async_job: TrackedTask[AsyncJobTracking] = trail.task(
            AsyncJobTrackingService, name="tests.async_job", retry=retry
        )(self._async_job)

    def _job(self, run: Any) -> None:
        self.ran.append(run.number)
        self.body(run)

    async def _async_job(self, run: Any) -> None:
        await self.coroutine(run)

    def deliver(self, job: int, times: int = 1) -> dict[str, Any]:
        """Deliver a job's message as often as asked for, and return its row."""
        for _ in range(times):
            self.job.celery_task.apply(args=(job,), task_id="task 1")
        return columns(self.engine, job)

    def break_once(self, monkeypatch: pytest.MonkeyPatch, *, after_commit: bool) -> None:
        """Have the connection break, before the next statement or between its commit and its answer."""
        kept, breaks = self.trail.engines.kept, iter([DatabaseUnavailable("the connection was lost")])

        @contextmanager
        def breaking(durability: Durability = "durable") -> Iterator[Any]:
            error = next(breaks, None)
            if error is not None and not after_commit:
                raise error
            with kept(durability) as db:
                yield db
            if error is not None:
                raise error

        monkeypatch.setattr(self.trail.engines, "kept", breaking)

    def stale_writes(self) -> int:
        with self.engine.connect() as db:
            return counters.read(db, SCHEMA).get(("job", counters.STALE_WRITES), 0)


@pytest.fixture
def worker(
    database_url: str, redis_url: str, engine: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Worker]:
    settings = Settings.load(database_url=database_url, broker_url=redis_url, home=tmp_path)
    celery = Celery("execution")
    celery.conf.task_default_queue = request.node.name
    trail = Trail(celery, settings, schema=SCHEMA)
    yield Worker(trail, engine)
    trail.engines.dispose()
    celery.close()


# Lost answers


def test_a_claim_whose_answer_was_lost_is_this_workers_own(
    worker: Worker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the row would wait for its lease to run out, and a failed attempt be counted."""
    job = add_job(engine)
    worker.break_once(monkeypatch, after_commit=True)

    row = worker.deliver(job)

    assert (row["status"], row["attempts"], row["attempt_log"]) == ("COMPLETED", 0, [])
    assert worker.ran == [1]


@pytest.mark.parametrize(
    ("task", "seconds_ago"),
    [pytest.param("task 2", 0, id="of another message"), pytest.param("task 1", 3600, id="long ago")],
)
def test_a_claim_that_somebody_else_made_meanwhile_is_left_alone(
    worker: Worker, engine: Engine, monkeypatch: pytest.MonkeyPatch, task: str, seconds_ago: int
) -> None:
    job = add_job(engine)
    worker_name = worker.deliver(job)["worker"]
    with engine.begin() as db:
        db.execute(text("UPDATE tracking.job_tracking SET status = 'PENDING', completed_at = NULL"))
    claim(engine, job, task=task, worker=worker_name)
    with engine.begin() as db:
        db.execute(
            text("UPDATE tracking.job_tracking SET started_at = started_at - make_interval(secs => :ago)"),
            {"ago": seconds_ago},
        )
    before = columns(engine, job)
    worker.ran.clear()
    worker.break_once(monkeypatch, after_commit=False)

    assert worker.deliver(job) == before
    assert worker.ran == []


def test_a_message_that_is_doubled_while_its_job_runs_does_not_take_the_claim_for_its_own(
    worker: Worker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of one worker have one name, and a message that comes twice has one id."""
    job = add_job(engine)

    def body(run: Any) -> None:
        if worker.ran == [1]:
            with monkeypatch.context() as during:
                worker.break_once(during, after_commit=False)
                worker.job.celery_task.apply(args=(run.id,), task_id="task 1")

    worker.body = body

    assert worker.deliver(job)["status"] == "COMPLETED"
    assert worker.ran == [1]


@pytest.mark.parametrize(("error", "status"), [(ValueError("no"), "PENDING"), (GiveUp("no"), "FAILED")])
def test_a_failure_whose_answer_was_lost_counts_once_and_is_no_stale_write(
    worker: Worker, engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    def body(_: Any) -> None:
        worker.break_once(monkeypatch, after_commit=True)
        raise error

    worker.body = body
    job = add_job(engine)
    result = worker.job.celery_task.apply(args=(job,), task_id="task 1")

    row = columns(engine, job)
    assert (row["status"], row["attempts"], len(row["attempt_log"])) == (status, 1, 1)
    assert result.state == ("RETRY" if status == "PENDING" else "FAILURE")
    assert worker.stale_writes() == 0


def test_the_failure_of_a_superseded_attempt_is_stale_though_the_next_one_failed_likewise(
    worker: Worker, engine: Engine
) -> None:
    def body(run: Any) -> None:
        with engine.begin() as db:
            tracker.release(db, JobTracking, run.fence)
        taken = claim(engine, run.id, task="task 2")
        with engine.begin() as db:
            tracker.fail(db, JobTracking, taken.fence, Retry(0.0), error="ValueError: no")
        raise ValueError("no")

    worker.body = body
    row = worker.deliver(add_job(engine))

    assert (row["attempts"], len(row["attempt_log"])) == (1, 1)
    assert worker.stale_writes() == 1


# Celery's own Retry


def test_a_body_that_raises_celerys_retry_is_repeated_after_the_delay_it_asks_for(
    worker: Worker, engine: Engine
) -> None:
    def body(_: Any) -> None:
        raise CeleryRetry(exc=ValueError("not yet"), when=1800)

    worker.body = body
    row = worker.deliver(add_job(engine, max_attempts=2))

    assert (row["status"], row["attempts"]) == ("PENDING", 1)
    assert 1700 < (row["next_attempt_at"] - row["updated_at"]).total_seconds() <= 1800


@pytest.mark.parametrize("cause", [ValueError("not yet"), None])
def test_a_body_that_raises_celerys_retry_each_time_ends_failed(
    worker: Worker, engine: Engine, cause: Exception | None
) -> None:
    """How often is not Celery's to say: the row counts the attempts."""

    def body(_: Any) -> None:
        raise CeleryRetry("please", exc=cause, when=0)

    worker.body = body
    job = add_job(engine, max_attempts=2)
    worker.deliver(job)
    result = worker.job.celery_task.apply(args=(job,), task_id="task 1")

    row = columns(engine, job)
    assert (row["status"], row["attempts"], worker.ran) == ("FAILED", 2, [1, 2])
    assert (result.state, worker.deliver(job)["attempts"]) == ("FAILURE", 2)
    assert ("not yet" if cause else "please") in row["error_message"]


def test_an_error_that_is_not_worth_a_retry_is_none_either_when_celery_is_asked_for_one(
    worker: Worker, engine: Engine
) -> None:
    def body(_: Any) -> None:
        raise CeleryRetry(exc=GiveUp("pointless"), when=0)

    worker.body = body

    assert worker.deliver(add_job(engine, max_attempts=5))["status"] == "FAILED"


# Coroutines


def test_coroutines_that_write_all_at_once_keep_no_connections(worker: Worker, engine: Engine) -> None:
    """They write on whatever thread of the event loop is free; what a thread keeps, it keeps for good."""
    found: list[int] = []

    async def body(run: Any) -> None:
        await asyncio.gather(*(run.arecord(payload=f"part {part}") for part in range(MANY)))
        with engine.connect() as db:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tasktrail'"
            found.append(db.scalar(text(query)))

    worker.coroutine = body
    with engine.begin() as db:
        job = tracker.create(db, AsyncJobTracking, {}).id
    worker.async_job.celery_task.apply(args=(job,), task_id="task 1")

    row = columns(engine, job, AsyncJobTracking)
    assert (row["status"], row["payload"].split()[0]) == ("COMPLETED", "part")
    [connections] = found
    assert connections <= 8, "five of the pool, and those of the thread that runs the body"
