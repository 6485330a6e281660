"""The ``portfolio`` command when all is well: enqueue, backfill, and a worker that does the work."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from portfolio.cli import app
from tests.commands import Outcome, program, run_here
from tests.waiting import until

FRIDAY = "2026-10-30"


@pytest.fixture(autouse=True)
def environment(
    project_folder: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, make_database: Any, redis_url: str
) -> Path:
    """A migrated database and a broker in the environment, and an empty folder to work in."""
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)
    return project_folder


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as db:
        return db.exec_driver_sql(
            "SELECT * FROM tracking.exchange_rate_update_tracking ORDER BY update_date"
        ).all()


def set_status(engine: Engine, status: str) -> None:
    with engine.begin() as db:
        db.exec_driver_sql(f"UPDATE tracking.exchange_rate_update_tracking SET status = '{status}'")


def test_upgrade_makes_the_tables_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, bare_engine: Engine
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", bare_engine.url.render_as_string(hide_password=False))

    for _ in range(2):
        assert run_here(app, "db", "upgrade") == Outcome(0, "the database is up to date\n", "")
    assert rows(bare_engine) == []


def test_an_update_is_enqueued_once(engine: Engine) -> None:
    first = run_here(app, "rates", "update", FRIDAY, "-c", "usd", "-c", " chf ")
    second = run_here(app, "rates", "update", FRIDAY)

    assert first == Outcome(0, "exchange_rate 1: created, PENDING\n", "")
    assert second == Outcome(0, "exchange_rate 1: existing, PENDING\n", "")
    (row,) = rows(engine)
    assert (row.update_date, row.target_currencies, row.total_count) == (
        date(2026, 10, 30),
        ["USD", "CHF"],
        2,
    )
    assert row.source == "ecb-bundled"
    assert row.dispatched_at is not None


@pytest.mark.parametrize(
    ("status", "options", "outcome"),
    [
        ("FAILED", [], "existing, FAILED"),
        ("FAILED", ["--restart"], "restarted, PENDING"),
        ("CANCELLED", ["--restart"], "restarted, PENDING"),
        ("COMPLETED", ["--restart"], "existing, COMPLETED"),
    ],
)
def test_an_update_that_failed_is_started_again_when_asked(
    engine: Engine, status: str, options: list[str], outcome: str
) -> None:
    run_here(app, "rates", "update", FRIDAY)
    set_status(engine, status)

    assert run_here(app, "rates", "update", FRIDAY, *options).out == f"exchange_rate 1: {outcome}\n"


def test_a_backfill_enqueues_the_published_days_of_a_range_and_leaves_those_that_are_there(
    engine: Engine,
) -> None:
    run_here(app, "rates", "update", FRIDAY, "-c", "USD")
    words = ["rates", "backfill", "--from", "2026-10-19", "--to", "2026-11-01", "-c", "usd", "-c", "chf"]

    assert run_here(app, *words) == Outcome(
        0,
        "10 published days: 9 new rows, 1 were there already; 9 messages sent\n"
        "left out: 4 days without rates, 0 whose rates are still to come\n",
        "",
    )
    assert "0 new rows, 10 were there already; 0 messages" in run_here(app, *words).out
    found = rows(engine)
    assert [row.update_date.day for row in found] == [*range(19, 24), *range(26, 31)]
    assert {tuple(row.target_currencies) for row in found[:-1]} == {("USD", "CHF")}
    assert found[-1].target_currencies == ["USD"]


def test_a_backfill_of_days_without_rates_enqueues_nothing(engine: Engine) -> None:
    outcome = run_here(app, "rates", "backfill", "--from", "2026-10-24", "--to", "2026-10-25")

    assert outcome.code == 0
    assert outcome.out.startswith("0 published days: 0 new rows")
    assert rows(engine) == []


def test_a_worker_does_the_work_and_ends_in_peace_when_asked_to(
    environment: Path, engine: Engine, published: Any, stored: Callable[[], Any]
) -> None:
    days = [date(2026, 10, 28), date(2026, 10, 29), date(2026, 10, 30)]
    backfill = ["rates", "backfill", "--from", str(days[0]), "--to", str(days[-1]), "-c", "USD", "-c", "JPY"]
    assert run_here(app, *backfill).code == 0
    assert run_here(app, "rates", "update", "2026-10-24").code == 0
    with (environment / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [program("portfolio"), "worker", "--pool", "solo", "--concurrency", "1", "--loglevel", "info"],
            env={**os.environ, "PORTFOLIO_RETRY_BASE": "0.1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: {row.status for row in rows(engine)} == {"COMPLETED", "FAILED"}, seconds=60)
    finally:
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(60)

    ended = {row.update_date: (row.status, row.attempts, row.success_count) for row in rows(engine)}
    assert ended == {date(2026, 10, 24): ("FAILED", 1, 0)} | dict.fromkeys(days, ("COMPLETED", 0, 2))
    assert stored() == {
        (day, currency): Decimal(published[day][currency]) for day in days for currency in ("USD", "JPY")
    }
    assert code == 0, (environment / "worker.log").read_text()
