"""Work that a live worker did not finish: killed, timed out, crashed, or never sent. None of it is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import datetime
from typing import Any

import psutil
import pytest
from redis import Redis
from sqlalchemy import text

from tasktrail import Enqueued, Status, TrackedTask, tracker
from tests.acceptance.conftest import Live, Worker, outcomes
from tests.acceptance.worker_app import VISIBILITY_TIMEOUT
from tests.support import JobTracking
from tests.upkeep import shift
from tests.waiting import until

BOTH = pytest.mark.parametrize("kind", ["job", "async_job"])
LEASE = 60


def seconds(entry: Any) -> float:
    """Return how long an attempt in the log took until its end was recorded."""
    took = datetime.fromisoformat(entry["end"]) - datetime.fromisoformat(entry["start"])
    return took.total_seconds()


def kill(worker: Worker) -> None:
    """Kill a worker with all its children, as the loss of a machine would."""
    parent = psutil.Process(worker.pid)
    children = parent.children(recursive=True)
    for process in (parent, *children):
        process.kill()
    psutil.wait_procs([parent, *children], timeout=20)
    worker.wait(20)


def send_with_limits(live: Live, kind: str, **limits: float) -> Enqueued:
    """Enqueue a job that holds on, under a time limit."""
    task: TrackedTask[Any] = getattr(live.tasks, kind)
    with live.engine.begin() as db:
        row = tracker.create(db, task.domain.model, {"payload": "hold"})
        tracker.mark_dispatched(db, task.domain.model, [row.id])
    task.celery_task.apply_async(args=(row.id,), task_id=row.celery_task_id, **limits)
    return Enqueued(task.domain.name, row.id, row.outcome, row.status, row.celery_task_id)


# Pool processes


@BOTH
def test_a_killed_pool_process_is_noticed_long_before_the_lease_and_its_job_is_repeated(
    brisk: Live, kind: str
) -> None:
    job, pid = brisk.hold(kind)
    os.kill(pid, signal.SIGKILL)
    another = brisk.pid(job, attempt=2)
    brisk.let_go(job)

    row = brisk.ended(job)
    [entry] = row.attempt_log
    assert (row.status, row.attempts, brisk.effects(job)) == (Status.COMPLETED, 1, 1)
    assert (entry["number"], entry["outcome"], entry["worker"]) == (
        1,
        "lost",
        f"{row.worker.rsplit('/')[0]}/{pid}",
    )
    assert entry["error"].startswith("WorkerLost: Worker exited prematurely: signal 9 (SIGKILL)")
    assert seconds(entry) < LEASE / 2
    assert another != pid


def test_a_pool_process_that_somebody_else_ends_counts_as_lost(brisk: Live) -> None:
    job, pid = brisk.hold("job")
    os.kill(pid, signal.SIGTERM)
    brisk.pid(job, attempt=2)
    brisk.let_go(job)

    row = brisk.ended(job)
    assert (row.status, outcomes(row)) == (Status.COMPLETED, [(1, "lost")])


@BOTH
@pytest.mark.parametrize(
    ("limits", "error"),
    [({"time_limit": 0.5}, "TimeLimit: "), ({"soft_time_limit": 0.5}, "SoftTimeLimitExceeded: ")],
    ids=["hard", "soft"],
)
def test_a_job_that_exceeds_its_time_limit_is_logged_as_a_timeout_and_repeated(
    brisk: Live, kind: str, limits: dict[str, float], error: str
) -> None:
    job = send_with_limits(brisk, kind, **limits)
    brisk.pid(job, attempt=2)  # the retry has no limit
    brisk.let_go(job)

    row = brisk.ended(job)
    [entry] = row.attempt_log
    assert (row.status, row.attempts, brisk.effects(job)) == (Status.COMPLETED, 1, 1)
    assert (entry["number"], entry["outcome"]) == (1, "timeout")
    assert entry["error"].startswith(error)
    assert seconds(entry) < LEASE / 2


@BOTH
@pytest.mark.parametrize(
    ("payload", "attempts", "outcome", "error"),
    [
        ("kill", 3, "lost", "WorkerLost: Worker exited prematurely: signal 9 (SIGKILL)"),
        ("out of memory", 3, "error", "MemoryError: no memory for this"),
        ("exit", 1, "error", "SystemExit: 3"),
        ("interrupt", 1, "error", "KeyboardInterrupt"),
    ],
)
def test_a_job_that_takes_its_process_down_each_time_ends_failed_and_the_worker_goes_on(
    brisk: Live, kind: str, payload: str, attempts: int, outcome: str, error: str
) -> None:
    task: TrackedTask[Any] = getattr(brisk.tasks, kind)

    row = brisk.ended(task.enqueue(payload=payload))
    after = brisk.ended(task.enqueue(payload="effect"))

    assert (row.status, row.attempts) == (Status.FAILED, attempts)
    assert outcomes(row) == [(number, outcome) for number in range(1, attempts + 1)]
    assert row.error_message.startswith(error)
    assert (after.status, after.attempts) == (Status.COMPLETED, 0)


# Leases


def test_a_body_that_never_pauses_keeps_its_lease(fresh: Live) -> None:
    lease = 1.0
    with fresh.worker(lease=lease, heartbeat_interval=0.2, maintenance_interval=0.1):
        job, _ = fresh.hold("job", "hold busily")

        def age() -> float:
            row = fresh.row(job)
            return float((row.heartbeat_at - row.started_at).total_seconds())

        until(lambda: age() > 2 * lease)
        fresh.let_go(job)
        row = fresh.ended(job)

    assert (row.status, row.attempts, row.attempt_log) == (Status.COMPLETED, 0, [])
    assert fresh.effects(job) == 1


def test_the_jobs_of_a_worker_that_is_gone_are_rescued_by_another_when_their_leases_run_out(
    fresh: Live,
) -> None:
    with fresh.worker(name="first") as worker:
        jobs = [fresh.hold("job")[0], fresh.hold("job", max_attempts=1)[0]]
        kill(worker)
    before = [fresh.row(job).status for job in jobs]
    with fresh.worker(name="second", heartbeat_interval=0.2, maintenance_interval=0.1):
        probe = fresh.tasks.job.enqueue()
        fresh.ended(probe)
        untouched = [fresh.row(job).status for job in jobs]
        shift(fresh.engine, -LEASE, "heartbeat_at", ids=[job.id for job in jobs])
        fresh.pid(jobs[0], attempt=2)
        fresh.let_go(*jobs)
        repeated, failed = (fresh.ended(job) for job in jobs)

    assert before == untouched == [Status.PROCESSING, Status.PROCESSING]
    assert (repeated.status, outcomes(repeated)) == (Status.COMPLETED, [(1, "lost")])
    assert (failed.status, outcomes(failed)) == (Status.FAILED, [(1, "lost")])
    assert repeated.attempt_log[0]["error"] == "LeaseExpired: no heartbeat for 60 s"
    assert [fresh.effects(job) for job in jobs] == [1, 0]


# Messages


FAULTS = {
    "no session": "tasks.job.enqueue(payload='effect')",
    "a session of one's own": """
with Session(tasks.trail.engines.sync) as db:
    tasks.job.enqueue(db, payload='effect')
    db.commit()
""",
    "after others": "tasks.job.enqueue(payload='effect', after=[TrackingRef('job', 1)])",
    "many": "tasks.job.enqueue_many([{'payload': 'effect'}] * 3)",
}
FAULT = """
import os, signal
from sqlalchemy.orm import Session
from tasktrail import Settings, TrackingRef
from tasktrail.celery.publish import Publisher
from tests.acceptance.worker_app import build

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

Publisher.send = die
tasks = build(Settings.load())
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_process_killed_between_commit_and_publish_leaves_a_row_that_maintenance_sends_within_two_rounds(
    fresh: Live, redis_url: str, fault: str
) -> None:
    settings = fresh.tasks.trail.settings
    done = fresh.tasks.job.enqueue()
    with fresh.engine.begin() as db:
        fence = tracker.claim(db, JobTracking, done.id, celery_task_id=None, worker=None).fence
        tracker.complete(db, JobTracking, fence)
    queue = Redis(unix_socket_path=redis_url.removeprefix("redis+socket://"))
    queue.delete(fresh.tasks.trail.app.conf.task_default_queue)
    environment = {
        **os.environ,
        "TASKTRAIL_DATABASE_URL": settings.database_url.get_secret_value(),  # type: ignore[union-attr]
        "TASKTRAIL_BROKER_URL": redis_url,
        "TEST_QUEUE": fresh.tasks.trail.app.conf.task_default_queue,
    }

    killed = subprocess.run([sys.executable, "-c", FAULT + FAULTS[fault]], env=environment, check=False)
    with fresh.engine.connect() as db:
        rows = db.execute(
            text("SELECT id, status, dispatched_at FROM tracking.job_tracking WHERE id > 1")
        ).all()
    sent_before = queue.llen(fresh.tasks.trail.app.conf.task_default_queue)
    maintenance = fresh.tasks.trail.maintenance()
    with fresh.tasks.trail.engines.pooled() as connection:
        rounds = [maintenance.tick(connection).dispatched for _ in range(2)]
    sent_after = queue.llen(fresh.tasks.trail.app.conf.task_default_queue)
    queue.close()

    expected = 3 if fault == "many" else 1
    assert killed.returncode == -signal.SIGKILL
    assert [(row.status, row.dispatched_at) for row in rows] == [("PENDING", None)] * expected
    assert sent_before == 0
    assert sum(rounds) == sent_after == expected


def test_a_retry_due_in_three_hours_runs_once_when_it_is_due_and_redis_has_nothing_to_deliver_before(
    brisk: Live, redis_url: str
) -> None:
    """Redis would deliver a message with that ETA again each minute, to every worker."""
    job = brisk.tasks.job.enqueue(payload="effect in three hours")
    waiting = until(lambda: row if (row := brisk.row(job)).attempts == 1 else None)
    redis = Redis(unix_socket_path=redis_url.removeprefix("redis+socket://"))

    def messages() -> list[bytes]:
        """Return what the broker has of this job, waiting or delivered and not yet acknowledged."""
        queue = brisk.tasks.trail.app.conf.task_default_queue
        found = [*redis.lrange(queue, 0, -1), *redis.hvals("unacked")]
        return [message for message in found if str(job.celery_task_id).encode() in message]

    until(lambda: not messages())
    probe = brisk.ended(brisk.tasks.job.enqueue())
    early = brisk.row(job)
    in_broker = messages()

    shift(brisk.engine, -3 * 3600, "next_attempt_at", ids=[job.id])
    row = brisk.ended(job)
    redis.close()

    assert VISIBILITY_TIMEOUT < 3 * 3600
    assert (waiting.status, waiting.dispatched_at, in_broker) == (Status.PENDING, None, [])
    assert (early.status, early.attempts, early.dispatched_at) == (Status.PENDING, 1, None)
    assert probe.status == Status.COMPLETED
    assert (row.status, outcomes(row), brisk.effects(job)) == (Status.COMPLETED, [(1, "error")], 1)
