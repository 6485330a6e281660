"""A live worker that is told to stop: what it finishes, and what it leaves to another one."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tasktrail import Status
from tests.acceptance.conftest import Live, Worker, outcomes
from tests.waiting import until

QUICK = {"heartbeat_interval": 0.2, "maintenance_interval": 0.1}
PLACES = pytest.mark.parametrize(
    ("pool", "kinds"),
    [("prefork", ["job", "async_job"]), ("threads", ["job", "async_job"]), ("solo", ["job"])],
    ids=["prefork", "threads", "solo"],
)


def log_of(live: Live, pool: str) -> str:
    return (live.folder / f"celery-{pool}.log").read_text()


def has_ended(worker: Worker) -> bool:
    return worker.poll() is not None


def is_free(row: Any) -> bool:
    """Say whether a row is due again and has lost no attempt."""
    return (row.status, row.attempts, row.attempt_log, row.heartbeat_at) == (Status.PENDING, 0, [], None)


@PLACES
def test_running_work_is_finished_within_the_grace_period(fresh: Live, pool: str, kinds: list[str]) -> None:
    with fresh.worker(pool, shutdown_grace=60, **QUICK) as worker:
        jobs = [fresh.hold(kind)[0] for kind in kinds]
        processes = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGTERM)
        until(lambda: "Warm shutdown" in log_of(fresh, pool))
        while_stopping = [fresh.row(job).status for job in jobs]
        fresh.let_go(*jobs)
        until(lambda: has_ended(worker), seconds=30)

    assert set(while_stopping) == {Status.PROCESSING}
    assert worker.returncode == 0
    assert not [process for process in processes if process.is_running()]
    for job in jobs:
        row = fresh.row(job)
        assert (row.status, row.attempts, row.attempt_log) == (Status.COMPLETED, 0, [])


@PLACES
def test_what_outlasts_the_grace_period_is_given_back_without_costing_an_attempt(
    fresh: Live, pool: str, kinds: list[str]
) -> None:
    with fresh.worker(pool, shutdown_grace=0.2, **QUICK) as worker:
        jobs = [fresh.hold(kind)[0] for kind in kinds]
        worker.send_signal(signal.SIGTERM)
        until(lambda: has_ended(worker), seconds=30)

    for job in jobs:
        assert is_free(fresh.row(job))
        assert fresh.told(job)[-1] == "ended"
        assert fresh.effects(job) == 0


def test_what_a_worker_did_not_finish_or_not_even_start_is_done_by_another_one(fresh: Live) -> None:
    with fresh.worker(shutdown_grace=0.2, **QUICK) as worker:
        running = [fresh.hold("job")[0] for _ in range(2)]
        fetched = [fresh.tasks.job.enqueue(payload="effect") for _ in range(6)]
        until(lambda: log_of(fresh, "prefork").count("] received") >= 8)
        worker.send_signal(signal.SIGTERM)
        until(lambda: has_ended(worker), seconds=30)
    with fresh.worker(name="another", **QUICK):
        fresh.let_go(*running)
        rows = [fresh.ended(job) for job in (*running, *fetched)]

    assert [(row.status, row.attempts, row.attempt_log) for row in rows] == [(Status.COMPLETED, 0, [])] * 8
    assert [fresh.effects(job) for job in (*running, *fetched)] == [1] * 8


def test_a_body_that_does_not_look_whether_it_is_cancelled_keeps_its_thread_but_not_its_row(
    fresh: Live,
) -> None:
    """Celery cannot end a thread; whoever supervises the worker will kill the process."""
    with fresh.worker("threads", shutdown_grace=0.2, **QUICK) as worker:
        job, _ = fresh.hold("job", "hold stubbornly")
        worker.send_signal(signal.SIGTERM)
        until(lambda: is_free(fresh.row(job)))
        lingers = not has_ended(worker)
        fresh.let_go(job)
        until(lambda: has_ended(worker), seconds=30)

    assert lingers
    assert is_free(fresh.row(job))
    assert fresh.effects(job) == 0


def test_a_cold_shutdown_gives_back_what_runs_without_costing_an_attempt(fresh: Live) -> None:
    with fresh.worker(shutdown_grace=0.2, **QUICK) as worker:
        jobs = [fresh.hold("job")[0], fresh.hold("async_job")[0]]
        worker.send_signal(signal.SIGQUIT)
        until(lambda: has_ended(worker), seconds=30)

    assert all(is_free(fresh.row(job)) for job in jobs)
    assert [fresh.effects(job) for job in jobs] == [0, 0]


def test_a_supervisor_that_stops_the_whole_process_group_costs_no_attempt(fresh: Live) -> None:
    """As systemd does by default: children are told to end, whatever the main process makes of it."""
    with fresh.worker(shutdown_grace=60, **QUICK) as worker:
        jobs = [fresh.hold("job")[0], fresh.hold("async_job")[0]]
        os.killpg(worker.pid, signal.SIGTERM)
        until(lambda: has_ended(worker), seconds=30)

    assert all(is_free(fresh.row(job)) for job in jobs)


def test_a_pool_process_that_is_killed_while_the_worker_stops_is_recorded_all_the_same(fresh: Live) -> None:
    with fresh.worker(shutdown_grace=60, **QUICK) as worker:
        job, pid = fresh.hold("job")
        worker.send_signal(signal.SIGTERM)
        until(lambda: "Warm shutdown" in log_of(fresh, "prefork"))
        os.kill(pid, signal.SIGKILL)
        until(lambda: has_ended(worker), seconds=30)

    row = fresh.row(job)
    assert (row.status, outcomes(row)) == (Status.PENDING, [(1, "lost")])


def test_a_worker_that_fails_and_cannot_end_is_ended_so_that_a_supervisor_starts_another(fresh: Live) -> None:
    log = fresh.folder / "failing.log"
    worker = fresh.start(log, "tests.acceptance.failing_app", "prefork", 1, shutdown_grace=0.1, **QUICK)
    try:
        until(lambda: has_ended(worker), seconds=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    assert worker.returncode == 1
    assert "Unrecoverable error: ValueError('the broker refuses it')" in log.read_text()
    assert "does not end by itself; its process is ended" in log.read_text()
