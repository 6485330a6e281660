"""Jobs that are cancelled while a live worker has them, or before."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tasktrail import Status, TrackedTask, counters
from tasktrail.filters import Filter
from tests.acceptance.conftest import Live, outcomes
from tests.support import SCHEMA
from tests.waiting import until

BOTH = pytest.mark.parametrize("kind", ["job", "async_job"])
REASON = "the customer changed her mind"


def stale_writes(live: Live, kind: str) -> int:
    with live.tasks.trail.engines.pooled() as db:
        return counters.read(db, SCHEMA).get((kind, counters.STALE_WRITES), 0)


def task_of(live: Live, kind: str) -> TrackedTask[Any]:
    return live.tasks.trail.task_of(kind)


def test_a_coroutine_is_cancelled_within_a_heartbeat_and_may_tidy_up(brisk: Live) -> None:
    job, pid = brisk.hold("async_job")
    before = stale_writes(brisk, "async_job")

    start = time.monotonic()
    brisk.tasks.async_job.cancel(job.id, REASON)
    cancelled_at_once = brisk.row(job).status
    until(lambda: brisk.told(job)[-1] == "ended")
    took = time.monotonic() - start
    after = brisk.ended(brisk.tasks.async_job.enqueue(payload="effect"))

    row = brisk.row(job)
    assert cancelled_at_once == Status.CANCELLED
    assert took < 5  # a heartbeat is due every 0.2 s, the lease is a minute
    assert brisk.told(job) == [f"pid {pid}", f"cancelled, cancelled: {REASON}", "ended"]
    assert (row.status, row.error_message, row.attempts) == (Status.CANCELLED, REASON, 0)
    assert (outcomes(row), row.attempt_log[0]["error"]) == ([(1, "cancelled")], REASON)
    assert (brisk.effects(job), stale_writes(brisk, "async_job")) == (0, before)
    assert after.status == Status.COMPLETED


def test_a_def_body_sees_that_it_is_cancelled_and_why_and_what_it_wrote_is_rolled_back(brisk: Live) -> None:
    job, pid = brisk.hold("job")
    before = stale_writes(brisk, "job")

    brisk.tasks.job.cancel(job.id, REASON)
    until(lambda: stale_writes(brisk, "job") == before + 1)

    row = brisk.row(job)
    assert brisk.told(job) == [f"pid {pid}", f"cancelled, cancelled: {REASON}", "ended"]
    assert (row.status, row.error_message, outcomes(row)) == (Status.CANCELLED, REASON, [(1, "cancelled")])
    assert brisk.effects(job) == 0


def test_a_late_completion_after_a_cancellation_is_fenced_rolled_back_and_counted(brisk: Live) -> None:
    job, pid = brisk.hold("job", "hold stubbornly")
    before = stale_writes(brisk, "job")
    brisk.tasks.job.cancel(job.id, REASON)
    cancelled = brisk.row(job)

    brisk.let_go(job)
    until(lambda: stale_writes(brisk, "job") == before + 1)

    row = brisk.row(job)
    assert brisk.told(job) == [f"pid {pid}", "ended"]
    assert (row.status, row.error_message, row.attempts) == (Status.CANCELLED, REASON, 0)
    assert (row.completed_at, row.updated_at) == (cancelled.completed_at, cancelled.updated_at)
    assert brisk.effects(job) == 0


@BOTH
def test_a_job_that_waits_is_cancelled_at_once_and_its_message_runs_nothing(brisk: Live, kind: str) -> None:
    task = task_of(brisk, kind)
    holding = [brisk.hold("job")[0], brisk.hold("job")[0]]  # both processes are busy
    waiting = task.enqueue(payload="effect")

    task.cancel(waiting.id, REASON)
    row = brisk.row(waiting)
    brisk.let_go(*holding)
    for _ in range(4):  # behind it in the queue, for each of the two processes
        brisk.ended(task.enqueue())

    assert (row.status, row.error_message, row.attempt_log) == (Status.CANCELLED, REASON, [])
    assert brisk.row(waiting).status == Status.CANCELLED
    assert brisk.effects(waiting) == 0


@BOTH
def test_a_job_that_waits_for_its_retry_is_cancelled(brisk: Live, kind: str) -> None:
    task = task_of(brisk, kind)
    job = task.enqueue(payload="far")
    until(lambda: brisk.row(job).attempts == 1)

    task.cancel(job.id, REASON)

    row = brisk.row(job)
    assert (row.status, row.error_message, outcomes(row)) == (Status.CANCELLED, REASON, [(1, "error")])


def test_a_cancelled_job_that_is_started_again_does_its_work_once_though_the_old_attempt_goes_on(
    brisk: Live,
) -> None:
    job, _ = brisk.hold("job", "hold stubbornly")
    before = stale_writes(brisk, "job")
    brisk.tasks.job.cancel(job.id, REASON)

    brisk.tasks.job.retry(job.id)
    brisk.pid(job, attempt=2)  # in the other process
    brisk.let_go(job)
    row = brisk.ended(job)
    until(lambda: stale_writes(brisk, "job") == before + 1)

    assert (row.status, row.attempts, outcomes(row)) == (Status.COMPLETED, 0, [(1, "cancelled")])
    assert brisk.row(job).status == Status.COMPLETED
    assert brisk.effects(job) == 1


def test_all_running_jobs_of_a_filter_are_cancelled(brisk: Live) -> None:
    jobs = [brisk.hold("async_job")[0] for _ in range(2)]

    count = brisk.tasks.async_job.cancel_where(Filter(states=[Status.PROCESSING]), REASON)
    for job in jobs:
        until(lambda job=job: brisk.told(job)[-1] == "ended")

    assert count == 2
    assert [brisk.row(job).status for job in jobs] == [Status.CANCELLED] * 2


# Through Celery


@BOTH
def test_a_running_job_that_is_revoked_and_terminated_is_cancelled_with_that_in_its_log(
    brisk: Live, kind: str
) -> None:
    job, pid = brisk.hold(kind)

    brisk.tasks.trail.app.control.revoke(job.celery_task_id, terminate=True)
    row = brisk.ended(job)
    until(lambda: not is_alive(pid))

    assert (row.status, row.error_message, row.attempts) == (
        Status.CANCELLED,
        "terminated through Celery",
        0,
    )
    assert (outcomes(row), brisk.effects(job)) == ([(1, "cancelled")], 0)
    assert brisk.row(job).status == Status.CANCELLED


@BOTH
def test_a_queued_job_that_is_revoked_is_cancelled_and_an_operator_can_start_it_again(
    brisk: Live, kind: str
) -> None:
    task = task_of(brisk, kind)
    holding = [brisk.hold("job")[0], brisk.hold("job")[0]]
    queued = task.enqueue(payload="effect")

    brisk.tasks.trail.app.control.revoke(queued.celery_task_id)
    brisk.let_go(*holding)
    cancelled = brisk.ended(queued)
    task.retry(queued.id)
    until(lambda: brisk.row(queued).status == Status.COMPLETED)

    assert (cancelled.status, cancelled.error_message) == (Status.CANCELLED, "revoked through Celery")
    assert (cancelled.attempt_log, cancelled.started_at) == ([], None)
    assert brisk.effects(queued) == 1


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
