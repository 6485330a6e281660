"""The heartbeats of a worker process: its leases are renewed together; runs learn that they lost theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tasktrail import FencedOut, Run, Status, tracker
from tasktrail.celery.heartbeat import Heartbeats
from tasktrail.direct import Direct
from tasktrail.engines import Engines
from tasktrail.registry import Registry
from tests.rows import add_job, claim, columns
from tests.support import SCHEMA, JobTracking, OrderTracking
from tests.upkeep import Upkeep, disconnect, shift
from tests.waiting import until

_days = count(date(2000, 1, 1).toordinal())


@pytest.fixture
def engines(database_url: str) -> Iterator[Engines]:
    """The engines of a worker process."""
    engines = Engines(database_url, application_name="worker")
    yield engines
    engines.dispose()


@pytest.fixture
def heartbeats(engines: Engines) -> Heartbeats:
    """Heartbeats that beat when the test says so."""
    return Heartbeats(engines, interval=3600)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are run on a worker's own connections, as they go out."""
    seen: list[str] = []
    execute = Direct.execute

    def note(self: Direct, statement: Any, parameters: Any = None) -> Any:
        seen.append(str(statement).split()[0])
        return execute(self, statement, parameters)

    monkeypatch.setattr(Direct, "execute", note)
    return seen


def start(engine: Engine, engines: Engines, job: int | None = None) -> Run[JobTracking]:
    """Claim a job, a new one if none is named, as a worker would."""
    taken = claim(engine, add_job(engine) if job is None else job)
    return Run(JobTracking, taken, engines, Registry(), SCHEMA)


def start_order(engine: Engine, engines: Engines) -> Run[OrderTracking]:
    with engine.begin() as db:
        fields = {"day": date.fromordinal(next(_days)), "currency": "EUR"}
        order = tracker.create(db, OrderTracking, fields).id
        taken = tracker.claim(db, OrderTracking, order, celery_task_id="task 1", worker="w1")
    return Run(OrderTracking, taken, engines, Registry(), SCHEMA)


def test_one_statement_renews_the_leases_of_all_rows_of_a_process(
    engine: Engine, engines: Engines, heartbeats: Heartbeats, statements: list[str]
) -> None:
    runs = [start(engine, engines) for _ in range(20)]
    for run in runs:
        heartbeats.add(run)
    shift(engine, -50, "heartbeat_at")

    heartbeats.beat()

    assert statements == ["UPDATE"]
    ages = [columns(engine, run.id)["heartbeat_at"] - run.fence.started_at for run in runs]
    assert all(timedelta(0) < age < timedelta(seconds=30) for age in ages)
    assert [run.cancelled for run in runs] == [False] * 20


def test_one_statement_for_each_domain(
    engine: Engine, engines: Engines, heartbeats: Heartbeats, statements: list[str]
) -> None:
    for run in (start(engine, engines), start_order(engine, engines), start(engine, engines)):
        heartbeats.add(run)

    heartbeats.beat()

    assert statements == ["UPDATE", "UPDATE"]


def test_a_process_that_works_on_nothing_asks_nothing(
    engine: Engine, engines: Engines, heartbeats: Heartbeats, statements: list[str]
) -> None:
    run = start(engine, engines)
    heartbeats.add(run)
    heartbeats.remove(run)

    heartbeats.beat()

    assert statements == []


def test_a_renewed_lease_is_not_rescued(
    engine: Engine, engines: Engines, heartbeats: Heartbeats, database_url: str
) -> None:
    silent, run = start(engine, engines), start(engine, engines)
    heartbeats.add(run)
    shift(engine, -61, "heartbeat_at")

    heartbeats.beat()
    upkeep = Upkeep(database_url)
    done = upkeep.tick()
    upkeep.engines.dispose()

    assert done.rescued == 1
    assert columns(engine, silent.id)["status"] == Status.PENDING
    assert columns(engine, run.id)["status"] == Status.PROCESSING


# What a run is told


def test_a_run_whose_row_was_cancelled_is_told_the_reason(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    cancelled, other = start(engine, engines), start(engine, engines)
    for run in (cancelled, other):
        heartbeats.add(run)
    with engine.begin() as db:
        tracker.cancel(db, JobTracking, cancelled.id, "nobody wants it")

    heartbeats.beat()

    assert (cancelled.cancelled, cancelled.cancel_reason) == (True, "cancelled: nobody wants it")
    assert (other.cancelled, other.cancel_reason) == (False, None)


def test_a_run_whose_row_was_rescued_is_told_so(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    run = start(engine, engines)
    heartbeats.add(run)
    with engine.begin() as db:
        tracker.release(db, JobTracking, run.fence)

    heartbeats.beat()

    assert run.cancel_reason == "another attempt took over; the row is PENDING"


def test_a_run_whose_row_was_taken_over_is_told_so(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    run = start(engine, engines)
    heartbeats.add(run)
    with engine.begin() as db:
        tracker.release(db, JobTracking, run.fence)
    claim(engine, run.id, task="task 2", worker="w2")

    heartbeats.beat()

    assert run.cancel_reason == "another attempt took over; the row is PROCESSING"


def test_a_run_whose_row_was_deleted_is_told_so(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    run = start(engine, engines)
    heartbeats.add(run)
    with engine.begin() as db:
        db.execute(text("DELETE FROM tracking.job_tracking"))

    heartbeats.beat()

    assert run.cancel_reason == "the row is gone"


def test_of_two_runs_of_one_row_in_a_process_only_the_one_that_lost_it_is_told(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    """A process that was paused past its lease may be given the row that it still works on."""
    stale = start(engine, engines)
    heartbeats.add(stale)
    with engine.begin() as db:
        tracker.release(db, JobTracking, stale.fence)
    fresh = start(engine, engines, stale.id)
    heartbeats.add(fresh)

    heartbeats.beat()

    assert (stale.cancelled, fresh.cancelled) == (True, False)


def test_a_run_that_has_just_completed_its_row_is_left_alone(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    run = start(engine, engines)
    heartbeats.add(run)
    with engine.begin() as db:
        tracker.complete(db, JobTracking, run.fence)

    heartbeats.beat()

    assert not run.cancelled


def test_a_coroutine_is_cancelled_once_however_often_its_run_is_told(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    run = start(engine, engines)
    calls: list[str] = []
    run.on_stop(lambda: calls.append("cancel"))
    heartbeats.add(run)
    with engine.begin() as db:
        tracker.cancel(db, JobTracking, run.id, "nobody wants it")

    heartbeats.beat()
    heartbeats.beat()

    assert calls == ["cancel"]


def test_a_coroutine_that_starts_after_its_run_was_told_is_cancelled_at_once(
    engine: Engine, engines: Engines
) -> None:
    run = start(engine, engines)
    calls: list[str] = []

    run.stop("cancelled: nobody wants it")
    run.on_stop(lambda: calls.append("cancel"))

    assert calls == ["cancel"]


# The thread


def test_leases_are_renewed_by_a_thread_again_and_again(engine: Engine, engines: Engines) -> None:
    heartbeats = Heartbeats(engines, interval=0.02)
    run = start(engine, engines)
    heartbeats.add(run)

    seen: set[Any] = set()

    def three_times() -> bool:
        seen.add(columns(engine, run.id)["heartbeat_at"])
        return len(seen) > 3

    until(three_times)
    heartbeats.remove(run)


def test_the_thread_goes_on_after_the_connection_was_cut(engine: Engine, engines: Engines) -> None:
    heartbeats = Heartbeats(engines, interval=0.02)
    run = start(engine, engines)
    heartbeats.add(run)
    for _ in range(3):
        before = columns(engine, run.id)["heartbeat_at"]
        until(lambda before=before: columns(engine, run.id)["heartbeat_at"] > before)
        disconnect(engine, "worker")

    before = columns(engine, run.id)["heartbeat_at"]
    until(lambda: columns(engine, run.id)["heartbeat_at"] > before)
    heartbeats.remove(run)


def test_the_thread_goes_on_after_an_error_that_nobody_expected(
    engine: Engine, engines: Engines, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeats = Heartbeats(engines, interval=0.02)
    run = start(engine, engines)
    with monkeypatch.context() as broken:
        broken.setattr(tracker, "renew", lambda *_: 1 / 0)
        heartbeats.add(run)
        until(lambda: "ZeroDivisionError" in caplog.text)

    before = columns(engine, run.id)["heartbeat_at"]
    until(lambda: columns(engine, run.id)["heartbeat_at"] > before)
    heartbeats.remove(run)


# Giving back


def test_what_a_process_works_on_is_given_back_without_costing_an_attempt(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    runs = [start(engine, engines) for _ in range(3)]
    for run in runs:
        heartbeats.add(run)

    heartbeats.give_back("the worker was shut down")

    assert {run.cancel_reason for run in runs} == {"the worker was shut down"}
    for run in runs:
        row = columns(engine, run.id)
        assert (row["status"], row["attempts"], row["attempt_log"]) == (Status.PENDING, 0, [])
        assert (row["dispatched_at"], row["heartbeat_at"]) == (None, None)
        with engine.begin() as db, pytest.raises(FencedOut):
            tracker.complete(db, JobTracking, run.fence)


def test_giving_back_skips_what_is_no_longer_owned(
    engine: Engine, engines: Engines, heartbeats: Heartbeats, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    done, gone, running = (start(engine, engines) for _ in range(3))
    for run in (done, gone, running):
        heartbeats.add(run)
    with engine.begin() as db:
        tracker.complete(db, JobTracking, done.fence)
        db.execute(text("DELETE FROM tracking.job_tracking WHERE id = :id"), {"id": gone.id})

    heartbeats.give_back("the worker was shut down")

    assert columns(engine, done.id)["status"] == Status.COMPLETED
    assert columns(engine, running.id)["status"] == Status.PENDING


def test_a_process_that_has_given_back_its_rows_takes_no_more(
    engine: Engine, engines: Engines, heartbeats: Heartbeats
) -> None:
    """A message that it has fetched already must not make it start again what it has just given back."""
    before = heartbeats.add(start(engine, engines))
    heartbeats.give_back("the worker was shut down")

    assert (before, heartbeats.add(start(engine, engines))) == (True, False)


def test_giving_back_tells_the_bodies_even_when_the_database_is_away(
    database_url: str, engine: Engine, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(engine, engines)
    cut_off = Engines(database_url.replace("/test_", "/missing_"))
    heartbeats = Heartbeats(cut_off, interval=3600)
    heartbeats.add(run)

    heartbeats.give_back("the worker was shut down")

    assert run.cancel_reason == "the worker was shut down"
    assert "is left to its lease: the database at" in caplog.text
