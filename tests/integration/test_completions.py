"""Completions whose answers are read later: none gets lost, whatever the connection does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, text

from tasktrail import DatabaseUnavailable, Run, Status, counters, tracker
from tasktrail.celery.completions import Completions
from tasktrail.celery.heartbeat import Heartbeats
from tasktrail.celery.persistence import Persistence
from tasktrail.engines import Engines
from tasktrail.registry import Registry
from tasktrail.sending import Sent
from tests.rows import add_job, claim, columns
from tests.support import SCHEMA, JobTracking
from tests.waiting import until


@pytest.fixture
def engines(database_url: str) -> Iterator[Engines]:
    engines = Engines(database_url, application_name="completer")
    yield engines
    engines.dispose()


@pytest.fixture
def heartbeats(engines: Engines) -> Heartbeats:
    return Heartbeats(engines, interval=3600)


@pytest.fixture
def completions(engines: Engines, heartbeats: Heartbeats) -> Iterator[Completions]:
    completions = Completions(engines, heartbeats, Persistence(engines, SCHEMA, patience=5))
    yield completions
    completions.close()


@pytest.fixture
def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are read when the test says so, not by the thread."""
    monkeypatch.setattr("tasktrail.celery.completions.TICK", 3600)


@pytest.fixture
def start(engine: Engine, engines: Engines, heartbeats: Heartbeats) -> Callable[[], Run[Any]]:
    """Claim a new job, as a worker would."""

    def start() -> Run[Any]:
        run: Run[Any] = Run(JobTracking, claim(engine, add_job(engine)), engines, Registry(), SCHEMA)
        assert heartbeats.add(run)
        return run

    return start


def status(engine: Engine, run: Run[Any]) -> str:
    found: str = columns(engine, run.id)["status"]
    return found


def stale_writes(engine: Engine) -> int:
    with engine.connect() as db:
        return counters.read(db, SCHEMA).get(("job", counters.STALE_WRITES), 0)


def renewed(engine: Engine, heartbeats: Heartbeats, run: Run[Any]) -> bool:
    """Say whether a run's lease is renewed by the next beat."""
    return run in heartbeats._runs.values()


def drop(engine: Engine) -> None:
    with engine.begin() as db:
        of_completer = "FROM pg_stat_activity WHERE application_name = 'completer'"
        assert db.scalar(text(f"SELECT count(pg_terminate_backend(pid)) {of_completer}")) > 0


@pytest.mark.usefixtures("nobody_reads")
def test_a_row_is_completed_before_its_answer_is_read(
    engine: Engine, completions: Completions, start: Callable[[], Run[Any]]
) -> None:
    run = start()
    run.note("two were missing")
    assert completions.begin(run)
    until(lambda: status(engine, run) == Status.COMPLETED)
    assert columns(engine, run.id)["error_message"] == "two were missing"


@pytest.mark.usefixtures("nobody_reads")
def test_a_lease_is_renewed_until_the_completion_is_settled(
    engine: Engine, completions: Completions, heartbeats: Heartbeats, start: Callable[[], Run[Any]]
) -> None:
    first, second = start(), start()
    completions.begin(first)
    assert renewed(engine, heartbeats, first)
    completions.begin(second)
    assert not renewed(engine, heartbeats, first)
    completions.close()
    assert not renewed(engine, heartbeats, second)


def test_an_idle_process_settles_its_last_completion(
    engine: Engine, completions: Completions, heartbeats: Heartbeats, start: Callable[[], Run[Any]]
) -> None:
    run = start()
    completions.begin(run)
    until(lambda: not renewed(engine, heartbeats, run))
    assert status(engine, run) == Status.COMPLETED


@pytest.mark.usefixtures("nobody_reads")
def test_a_superseded_attempt_completes_nothing_and_is_counted(
    engine: Engine,
    completions: Completions,
    start: Callable[[], Run[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = start()
    with engine.begin() as db:
        tracker.release(db, JobTracking, run.fence)
    again = claim(engine, run.id, task="task 2")
    completions.begin(run)
    completions.close()
    row = columns(engine, run.id)
    assert (row["status"], row["started_at"]) == (Status.PROCESSING, again.fence.started_at)
    assert stale_writes(engine) == 1
    assert f"job {run.id}" in caplog.text


@pytest.mark.usefixtures("nobody_reads")
def test_a_completion_whose_connection_is_lost_before_it_took_effect_is_repeated(
    engine: Engine, completions: Completions, start: Callable[[], Run[Any]]
) -> None:
    completions.begin(start())
    completions.close()  # the statement is prepared, which a lock would hold up
    run = start()
    with engine.begin() as holder:
        holder.execute(text("SELECT FROM tracking.job_tracking WHERE id = :id FOR UPDATE"), {"id": run.id})
        completions.begin(run)
        drop(engine)
        settling = threading.Thread(target=completions.close)
        settling.start()
    settling.join(20)
    assert status(engine, run) == Status.COMPLETED
    assert stale_writes(engine) == 0


@pytest.mark.usefixtures("nobody_reads")
def test_a_completion_that_took_effect_before_its_connection_was_lost_is_not_stale(
    engine: Engine,
    completions: Completions,
    start: Callable[[], Run[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = start()
    completions.begin(run)
    until(lambda: status(engine, run) == Status.COMPLETED)

    def lost(_: Sent) -> int:
        raise psycopg.OperationalError("the connection is closed")

    monkeypatch.setattr(Sent, "rows", lost)
    completions.close()
    assert status(engine, run) == Status.COMPLETED
    assert stale_writes(engine) == 0


@pytest.mark.usefixtures("nobody_reads")
def test_a_database_that_stays_away_leaves_the_row_to_its_lease(
    engine: Engine,
    completions: Completions,
    heartbeats: Heartbeats,
    start: Callable[[], Run[Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = start()

    def away(*_: Any) -> Any:
        raise DatabaseUnavailable("the database is away")

    with engine.begin() as holder:
        holder.execute(text("SELECT FROM tracking.job_tracking WHERE id = :id FOR UPDATE"), {"id": run.id})
        completions.begin(run)
        monkeypatch.setattr(Persistence, "write", away)
        drop(engine)
        with caplog.at_level(logging.WARNING):
            completions.close()
    assert "left to its lease" in caplog.text
    assert status(engine, run) == Status.PROCESSING
    assert not renewed(engine, heartbeats, run)


@pytest.mark.usefixtures("nobody_reads")
def test_the_time_limit_of_the_next_job_is_not_taken_for_trouble_with_the_last_one(
    engine: Engine,
    completions: Completions,
    heartbeats: Heartbeats,
    start: Callable[[], Run[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last, following = start(), start()
    completions.begin(last)

    def exceeded(_: Sent) -> int:
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patch:
        patch.setattr(Sent, "rows", exceeded)
        with pytest.raises(SoftTimeLimitExceeded):
            completions.begin(following)
    assert renewed(engine, heartbeats, last)
    completions.close()
    assert not renewed(engine, heartbeats, last)
    assert (status(engine, last), status(engine, following)) == (Status.COMPLETED, Status.PROCESSING)


def test_without_a_database_nothing_is_sent(heartbeats: Heartbeats, start: Callable[[], Run[Any]]) -> None:
    nowhere = Engines("postgresql://postgres@127.0.0.1:1/nowhere")
    run = start()
    assert not Completions(nowhere, heartbeats, Persistence(nowhere, SCHEMA, patience=0)).begin(run)


def test_threads_complete_rows_side_by_side(
    engine: Engine, completions: Completions, heartbeats: Heartbeats, start: Callable[[], Run[Any]]
) -> None:
    runs = [start() for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(completions.begin, runs))
    completions.close()
    assert {status(engine, run) for run in runs} == {Status.COMPLETED}
    assert not any(renewed(engine, heartbeats, run) for run in runs)
