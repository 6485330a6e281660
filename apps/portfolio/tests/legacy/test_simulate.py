"""The old workers: what they leave in the tables, how fast, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from portfolio.legacy.simulate import LegacyTablesMissing, Simulation, SimulationNotStarted
from portfolio.legacy.workers import DELETED_AT_ONCE, OldWorker
from tasktrail import InvalidField
from tests.commands import program
from tests.waiting import until


def work(engine: Engine, writes: int, *, number: int = 0, seed: int = 1) -> OldWorker:
    """Let a worker in this process do so many steps, without waiting."""
    worker = OldWorker(engine, seed, number)
    left = iter(range(writes + 1))
    worker.work(1e9, lambda _: next(left, None) is None)
    return worker


def scalars(engine: Engine, sql: str) -> list[Any]:
    with engine.connect() as db:
        return list(db.execute(text(sql)).scalars())


@pytest.fixture
def etfs(engine: Engine) -> None:
    Simulation(engine.url, rate=1)._prepare()


def test_the_workers_write_every_kind_of_change(engine: Engine, etfs: None) -> None:
    worker = work(engine, 1500)

    assert worker.tally.errors == {}
    assert set(worker.tally.changes) == {
        "task added", "task processing", "task completed", "task completed_with_errors", "task failed",
        "ETF update added", "ETF update processing", "ETF update retrying", "ETF update completed",
        "ETF update completed_with_errors", "ETF update failed",
        "day added", "day attempted", "day done", "rows deleted",
    }  # fmt: skip
    assert len(worker.tally.writes) == worker.tally.changes.total()
    assert min(seconds for _, seconds in worker.tally.writes) > 0


def test_a_task_is_updated_in_place_and_a_retry_is_a_new_row(engine: Engine, etfs: None) -> None:
    worker = work(engine, 800)
    rows = scalars(engine, "SELECT count(*) FROM task_status")
    unfinished = scalars(
        engine,
        "SELECT count(*) FROM task_status AS old WHERE status IN ('pending', 'processing') AND EXISTS "
        "(SELECT FROM task_status AS new WHERE new.resource_id = old.resource_id AND new.id > old.id)",
    )

    assert rows == [worker.tally.changes["task added"]]
    assert unfinished == [0]
    tries = "SELECT max(n) FROM (SELECT count(*) AS n FROM task_status GROUP BY resource_id) AS counted"
    assert scalars(engine, tries)[0] > 1


def test_a_day_has_one_row_whose_data_are_found_only_after_an_attempt(engine: Engine, etfs: None) -> None:
    work(engine, 800)

    early = "SELECT count(*) FROM daily_update_tracking WHERE data_found AND NOT attempted"
    assert scalars(engine, early) == [0]
    assert scalars(engine, "SELECT count(*) FROM daily_update_tracking")[0] > 20


def test_the_nightly_deletion_takes_old_completed_rows_only(engine: Engine, etfs: None) -> None:
    add = text(
        "INSERT INTO task_status (task_type, status, resource_id, created_at, updated_at) "
        "SELECT 'x', status, 0, day, day FROM unnest(CAST(:statuses AS text[])) AS status, "
        "unnest(CAST(:days AS timestamp[])) AS day, generate_series(1, 5)"
    )
    old, new = datetime(2020, 1, 1), datetime.now(UTC).replace(tzinfo=None)
    with engine.begin() as db:
        db.execute(add, {"statuses": ["completed", "failed"], "days": [old, new]})
    worker = OldWorker(engine, 1, 0)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        for _ in range(12):
            worker._nightly(db)
    left = scalars(engine, "SELECT status || extract(year FROM updated_at) FROM task_status ORDER BY 1")

    assert left == sorted([f"completed{new.year}"] * 5 + ["failed2020"] * 5 + [f"failed{new.year}"] * 5)
    assert DELETED_AT_ONCE > 5


def test_the_same_seed_makes_the_same_worker_do_the_same(engine: Engine, etfs: None) -> None:
    first = work(engine, 200, number=1)
    with engine.begin() as db:
        db.execute(text("TRUNCATE task_status, etf_updates, daily_update_tracking"))

    assert work(engine, 200, number=1).tally.changes == first.tally.changes


def test_an_error_is_counted_and_the_worker_goes_on(engine: Engine, etfs: None) -> None:
    with engine.begin() as db:
        db.execute(text("ALTER TABLE daily_update_tracking RENAME attempted TO tried"))
    worker = work(engine, 200)

    assert worker.tally.errors["UndefinedColumn"] > 5
    assert "attempted" in (worker.tally.first_error or "")
    assert worker.tally.changes.total() > 100


def test_a_worker_goes_on_after_its_connection_was_cut(engine: Engine, etfs: None) -> None:
    worker = OldWorker(engine, 1, 0)
    steps = iter(range(120))

    def wait(_: float) -> bool:
        step = next(steps, None)
        if step == 50:
            with engine.begin() as db:
                db.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                         "WHERE datname = current_database() AND pid <> pg_backend_pid()")
                )  # fmt: skip
        return step is None

    worker.work(1e9, wait)

    assert worker.tally.errors.total() == 1
    assert worker.tally.changes.total() > 60


def test_several_processes_write_at_the_rate_and_tell_what_they_did(engine: Engine) -> None:
    with Simulation(engine.url, rate=60, processes=2, seed=3) as simulation:
        until(lambda: scalars(engine, "SELECT count(*) FROM etf_updates")[0] > 15, seconds=60)
        summary = simulation.stop()

    assert summary.errors == {}
    assert summary.changes.total() > 40
    assert summary.changes_per_second < 70
    assert 0 < summary.p50 <= summary.p99 <= summary.longest
    assert scalars(engine, "SELECT count(*) FROM task_status")[0] > 0


def test_a_process_that_is_killed_is_reported(engine: Engine) -> None:
    simulation = Simulation(engine.url, rate=20, processes=1)
    simulation.start()
    simulation._processes[0][0].kill()
    simulation._processes[0][0].join()
    summary = simulation.stop()

    assert summary.errors == {"WorkerLost": 1}
    assert summary.first_error == "a process of the simulation ended without a word"


def test_processes_that_do_not_start_in_time_are_ended_and_said_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portfolio.legacy.simulate.START_PATIENCE", 0.001)
    simulation = Simulation(engine.url, rate=20, processes=1)
    with pytest.raises(SimulationNotStarted, match="not there after"):
        simulation.start()

    assert simulation._processes == []


def test_bad_numbers_and_missing_tables_are_refused(engine: Engine, bare_engine: Engine) -> None:
    with pytest.raises(InvalidField, match="rate"):
        Simulation(engine.url, rate=0)
    with pytest.raises(InvalidField, match="processes"):
        Simulation(engine.url, rate=1, processes=0)
    with pytest.raises(InvalidField, match="days"):
        Simulation(engine.url, rate=1, days=15)
    with pytest.raises(LegacyTablesMissing, match="task_status"):
        Simulation(bare_engine.url, rate=1).start()


@pytest.mark.timeout(400)
def test_ctrl_c_ends_the_command_with_its_summary(engine: Engine, redis_url: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "TASKTRAIL_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "TASKTRAIL_BROKER_URL": redis_url,
    }
    command = [program("portfolio"), "legacy", "simulate", "--rate", "40", "--seconds", "300"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: scalars(engine, "SELECT count(*) FROM task_status")[0] > 5, seconds=150)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()

    assert (process.returncode, err) == (0, "interrupted\n")
    assert "errors: 0" in out
    assert "a second\nlatency p50 " in out
