"""A live worker that is told to stop: what it finishes, and what it leaves to another one."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from tasktrail import Enqueued, Status
from tests.acceptance.conftest import Live, Worker, outcomes
from tests.waiting import until

BOTH = pytest.mark.parametrize("kind", ["job", "async_job"])
QUICK = {"heartbeat_interval": 0.2, "maintenance_interval": 0.1}


def has_ended(worker: Worker) -> bool:
    return worker.poll() is not None


def is_free(row: Any) -> bool:
    """Say whether a row is due again and has lost no attempt."""
    return (row.status, row.attempts, row.attempt_log, row.heartbeat_at) == (Status.PENDING, 0, [], None)


def finished_by_another_worker(live: Live, *jobs: Enqueued) -> list[Any]:
    """Let another worker do what is left, and return the rows."""
    with live.worker(name="another", **QUICK):
        live.let_go(*jobs)
        return [live.ended(job) for job in jobs]


@BOTH
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_running_work_is_finished_within_the_grace_period(fresh: Live, pool: str, kind: str) -> None:
    with fresh.worker(pool, shutdown_grace=60, **QUICK) as worker:
        job, _ = fresh.hold(kind)
        worker.send_signal(signal.SIGTERM)
        until(lambda: b"Warm shutdown" in (fresh.folder / f"celery-{pool}.log").read_bytes())
        still_running = fresh.row(job).status
        fresh.let_go(job)
        until(lambda: has_ended(worker), seconds=30)

    row = fresh.row(job)
    assert (still_running, worker.returncode) == (Status.PROCESSING, 0)
    assert (row.status, row.attempts, fresh.effects(job)) == (Status.COMPLETED, 0, 1)


@BOTH
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_outlasts_the_grace_period_goes_back_without_costing_an_attempt_and_is_done_by_another_worker(
    fresh: Live, pool: str, kind: str
) -> None:
    with fresh.worker(pool, shutdown_grace=0.2, **QUICK) as worker:
        job, _ = fresh.hold(kind)
        worker.send_signal(signal.SIGTERM)
        until(lambda: has_ended(worker), seconds=30)
    given_back = fresh.row(job)
    [row] = finished_by_another_worker(fresh, job)

    assert is_free(given_back)
    assert (row.status, row.attempts, row.attempt_log) == (Status.COMPLETED, 0, [])
    assert fresh.effects(job) == 1


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_body_that_does_not_look_whether_it_is_cancelled_keeps_its_process_but_not_its_row(
    fresh: Live, pool: str
) -> None:
    """Celery cannot end a thread; whoever supervises the worker will kill it."""
    with fresh.worker(pool, shutdown_grace=0.2, **QUICK) as worker:
        job, _ = fresh.hold("job", "hold stubbornly")
        worker.send_signal(signal.SIGTERM)
        until(lambda: is_free(fresh.row(job)))
        lingers = not has_ended(worker)
        fresh.let_go(job)
        until(lambda: has_ended(worker), seconds=30)
    late = fresh.row(job)
    [row] = finished_by_another_worker(fresh, job)

    assert lingers
    assert is_free(late)
    assert (row.status, row.attempts, fresh.effects(job)) == (Status.COMPLETED, 0, 1)


def test_a_cold_shutdown_gives_back_what_runs_without_costing_an_attempt(fresh: Live) -> None:
    with fresh.worker(shutdown_grace=0.2, **QUICK) as worker:
        jobs = [fresh.hold("job")[0], fresh.hold("async_job")[0]]
        worker.send_signal(signal.SIGQUIT)
        until(lambda: has_ended(worker), seconds=30)
    given_back = [fresh.row(job) for job in jobs]
    rows = finished_by_another_worker(fresh, *jobs)

    assert all(is_free(row) for row in given_back)
    assert [(row.status, row.attempts) for row in rows] == [(Status.COMPLETED, 0)] * 2


def test_a_supervisor_that_stops_the_whole_process_group_costs_no_attempt(fresh: Live) -> None:
    """As systemd does by default: children are told to end before their jobs are."""
    with fresh.worker(shutdown_grace=60, **QUICK) as worker:
        job, _ = fresh.hold("job")
        os.killpg(worker.pid, signal.SIGTERM)
        until(lambda: has_ended(worker), seconds=30)
    given_back = fresh.row(job)
    [row] = finished_by_another_worker(fresh, job)

    assert is_free(given_back)
    assert (row.status, row.attempts, fresh.effects(job)) == (Status.COMPLETED, 0, 1)


def test_a_pool_process_that_is_killed_while_the_worker_stops_is_recorded_all_the_same(fresh: Live) -> None:
    with fresh.worker(shutdown_grace=60, **QUICK) as worker:
        job, pid = fresh.hold("job")
        worker.send_signal(signal.SIGTERM)
        until(lambda: b"Warm shutdown" in (fresh.folder / "celery-prefork.log").read_bytes())
        os.kill(pid, signal.SIGKILL)
        until(lambda: has_ended(worker), seconds=30)

    row = fresh.row(job)
    assert (row.status, outcomes(row)) == (Status.PENDING, [(1, "lost")])


def test_what_a_worker_had_fetched_but_not_started_is_done_by_another(fresh: Live) -> None:
    with fresh.worker(shutdown_grace=0.2, **QUICK) as worker:
        running = [fresh.hold("job")[0] for _ in range(2)]
        fetched = [fresh.tasks.job.enqueue(payload="effect") for _ in range(6)]
        until(lambda: (fresh.folder / "celery-prefork.log").read_text().count("] received") >= 8)
        worker.send_signal(signal.SIGTERM)
        until(lambda: has_ended(worker), seconds=30)
    rows = finished_by_another_worker(fresh, *running, *fetched)

    assert [(row.status, row.attempts) for row in rows] == [(Status.COMPLETED, 0)] * 8
    assert [fresh.effects(job) for job in (*running, *fetched)] == [1] * 8


def test_an_idle_worker_ends_at_once_with_all_its_processes(fresh: Live) -> None:
    with fresh.worker(shutdown_grace=60) as worker:
        children = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGTERM)
        until(lambda: has_ended(worker), seconds=15)

    assert worker.returncode == 0
    assert len(children) >= 2
    assert not [child for child in children if child.is_running()]
