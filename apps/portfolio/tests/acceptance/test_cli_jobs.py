"""``portfolio etf``, ``daily`` and ``beat``: enqueue, wait for a worker, show, and complain in one line."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apps.portfolio.tests.settling import add_etfs, add_rates, only, rows
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from portfolio.cli import app
from portfolio.models import DailyUpdateTracking, Etf, EtfCreationTracking, EtfUpdateTracking
from tests.commands import Outcome, program, run_here
from tests.waiting import until

WEEK = ("--from", "2022-12-12", "--to", "2022-12-16")


@pytest.fixture(autouse=True)
def environment(
    project_folder: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, redis_url: str, request: Any
) -> Path:
    """A migrated database and a broker in the environment, and an empty folder to work in."""
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)
    monkeypatch.setenv("TASKTRAIL_MAINTENANCE_INTERVAL", "0.1")
    monkeypatch.setenv("COLUMNS", "200")
    return project_folder


@contextmanager
def process(folder: Path, *words: str, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for as long as the block takes, which begins when its log says that it is ready."""
    log = folder / f"{words[0]}.log"
    with log.open("wb") as output:
        running = subprocess.Popen([program("portfolio"), *words], stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: ready in log.read_text() or running.poll() is not None, seconds=60)
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        code = running.wait(60)
    assert code == 0, log.read_text()


def test_an_etf_is_added_updated_and_shown_while_a_worker_works(environment: Path, engine: Engine) -> None:
    with process(environment, "worker", "--pool", "solo", "--concurrency", "1", ready=" ready."):
        added = run_here(app, "etf", "add", "mtum", *WEEK, "--wait")
        days = ("--from", "2022-12-15", "--to", "2022-12-21")
        updated = run_here(app, "etf", "update", "MTUM", "--type", "full", *days, "--wait")
        unknown = run_here(app, "etf", "add", "ACME", "--wait")
        daily = run_here(app, "daily", "run", "--day", "2022-12-22", "--wait")
    shown = run_here(app, "etf", "show", "mtum", "--days", "3")

    assert added == Outcome(0, "etf_creation 1: created, PENDING\netf_creation 1: COMPLETED\n", "")
    assert updated == Outcome(0, "etf_update 2: created, PENDING\netf_update 2: COMPLETED\n", "")
    assert unknown.complains(
        "etf_creation 2 is FAILED: UnknownEtf: bundled knows no ETF with the symbol ACME"
    )
    assert (daily.code, daily.err) == (0, "")
    assert daily.out.splitlines() == [
        "daily_update 1: created, PENDING",
        "daily_update 2: created, PENDING",
        "daily_update 1: COMPLETED",
        "daily_update 2: COMPLETED",
    ]
    assert [row.data_found for row in rows(engine, DailyUpdateTracking)] == [True, True]
    assert shown.code == 0
    lines = [" ".join(line.split()) for line in shown.out.splitlines() if line.strip()]
    assert lines[0] == "MTUM: MTUM, iShares MSCI USA Momentum Factor ETF, USD, US46432F3964"
    assert lines[1] == "9 prices, from 2022-12-12 to 2022-12-22"
    assert [line.split()[1] for line in lines[4:7]] == ["2022-12-22", "2022-12-21", "2022-12-20"]
    assert lines[6] == "Tue 2022-12-20 135.08 143.166 USD bundled"
    assert "etf_update 2: COMPLETED, full, 2022-12-15 to 2022-12-21" in shown.out


def test_adding_an_etf_twice_is_one_row(engine: Engine) -> None:
    assert run_here(app, "etf", "add", "mtum", *WEEK).out == "etf_creation 1: created, PENDING\n"
    assert run_here(app, "etf", "add", "MTUM").out == "etf_creation 1: existing, PENDING\n"
    assert only(engine, EtfCreationTracking).task_metadata == {
        "history_start": "2022-12-12",
        "history_end": "2022-12-16",
    }


@pytest.mark.parametrize(
    ("options", "outcome"), [([], "existing, FAILED"), (["--restart"], "restarted, PENDING")]
)
def test_a_creation_that_failed_is_started_again_when_asked(
    engine: Engine, options: list[str], outcome: str
) -> None:
    run_here(app, "etf", "add", "MTUM")
    with engine.begin() as db:
        db.exec_driver_sql("UPDATE tracking.etf_creation_tracking SET status = 'FAILED'")

    assert run_here(app, "etf", "add", "MTUM", *options).out == f"etf_creation 1: {outcome}\n"


def test_an_update_is_of_the_last_thirty_days_unless_something_else_is_asked_for(engine: Engine) -> None:
    add_etfs(engine, "MTUM")
    run_here(app, "etf", "update", "mtum")
    row = only(engine, EtfUpdateTracking)

    assert (row.etf_id, row.update_type) == ("MTUM", "manual")
    assert row.end_date - row.start_date == timedelta(days=30)
    assert timedelta(0) <= datetime.now(UTC).date() - row.end_date <= timedelta(days=5)


def test_an_etf_is_found_by_its_symbol_or_its_id(engine: Engine) -> None:
    with Session(engine) as db:
        db.add(Etf(id="17", symbol="MTUM"))
        db.commit()
    ids = [run_here(app, "etf", "update", name, *WEEK).code for name in ("mtum", "17")]

    assert ids == [0, 0]
    assert [row.etf_id for row in rows(engine, EtfUpdateTracking)] == ["17", "17"]
    assert run_here(app, "etf", "add", "MTUM").complains("symbol", "its id is 17")
    assert run_here(app, "etf", "show", "17").out.startswith(
        "17: MTUM, unknown, unknown, unknown\n0 prices\n"
    )


def test_missing_dates_and_notes_of_updates_are_shown(engine: Engine) -> None:
    add_etfs(engine, "MTUM")
    add_rates(engine, date(2022, 12, 12), date(2022, 12, 16))
    run_here(app, "etf", "update", "MTUM", *WEEK)
    with engine.begin() as db:
        db.exec_driver_sql(
            "UPDATE tracking.etf_updates SET status = 'COMPLETED', notes = '[bold]rejected[/bold]',"
            " missing_dates = array(SELECT date '2022-12-01' + n FROM generate_series(0, 11) AS n)"
        )
    out = run_here(app, "etf", "show", "MTUM").out

    assert "missing: 2022-12-01, 2022-12-02, " in out
    assert "2022-12-10, and 2 more; [bold]rejected[/bold]" in out


def test_daily_updates_of_today_wait_until_the_data_are_out_and_are_not_waited_for(engine: Engine) -> None:
    outcome = run_here(app, "daily", "run", "--day", "2022-12-22", "--type", "etf_prices_MTUM")

    assert outcome == Outcome(0, "daily_update 1: created, PENDING\n", "")
    assert run_here(app, "daily", "run", "--day", "2022-12-22", "--type", "etf_prices_MTUM").out == (
        "daily_update 1: existing, PENDING\n"
    )
    today = run_here(app, "daily", "run")
    assert (today.code, len(rows(engine, DailyUpdateTracking))) == (0, 3)


BAD = [
    (["etf", "add", "US46432F3964"], ["symbol", "this is an ISIN"]),
    (["etf", "add", "no such thing"], ["symbol", "capital letters"]),
    (["etf", "add", "MTUM", "--from", "2022-12-16", "--to", "2022-12-12"], ["history_start", "is after"]),
    (["etf", "update", "MTUM"], ["symbol", "there is no such ETF yet: portfolio etf add MTUM"]),
    (["etf", "show", "MTUM"], ["symbol", "there is no such ETF yet"]),
    (["etf", "update", "QUAL", "--to", "2999-01-01"], ["end_date", "in the future"]),
    (["etf", "update", "QUAL", "--from", "1998-01-01", "--to", "1998-02-01"], ["start_date", "1999-01-04"]),
    (["etf", "update", "QUAL", "--from", "2022-12-16", "--to", "2022-12-12"], ["start_date", "is after"]),
    (["etf", "update", "TWICE"], ["symbol", "several ETFs have it: a, b"]),
    (["daily", "run", "--day", "2999-01-01"], ["update_date", "in the future"]),
    (["daily", "run", "--type", "weather"], ["update_type", "none of exchange_rates, etf_prices"]),
    (["daily", "run", "--day", "2022-12-22", "--wait", "--timeout", "0.2"], ["2 of 2 jobs", "is a worker"]),
]


@pytest.mark.parametrize(("words", "complaint"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_what_cannot_be_done_is_one_clear_line(
    engine: Engine, words: list[str], complaint: list[str]
) -> None:
    with Session(engine) as db:
        db.add_all([Etf(id="QUAL", symbol="QUAL"), Etf(id="a", symbol="TWICE"), Etf(id="b", symbol="TWICE")])
        db.commit()

    assert run_here(app, *words).complains(*complaint)
    assert rows(engine, EtfUpdateTracking) == rows(engine, EtfCreationTracking) == []


@pytest.mark.parametrize(
    "words", [["etf", "update", "QUAL", "--type", "everything"], ["daily", "run", "--day", "yesterday"]]
)
def test_an_option_that_cannot_be_read_is_a_usage_error(words: list[str]) -> None:
    outcome = run_here(app, *words)

    assert (outcome.code, outcome.out) == (2, "")
    assert words[-1] in outcome.err


def test_beat_runs_until_it_is_stopped_and_keeps_its_files_in_the_home_folder(environment: Path) -> None:
    with process(environment, "beat", ready="beat: Starting..."):
        until(lambda: list(environment.glob(".tasktrail/celerybeat-schedule*")))
        assert (environment / ".tasktrail/celerybeat.pid").exists()

    assert sorted(path.name for path in environment.iterdir()) == [".tasktrail", "beat.log"]
    assert not (environment / ".tasktrail/celerybeat.pid").exists()


def test_without_a_migrated_database_every_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, bare_engine: Engine, environment: Path
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", bare_engine.url.render_as_string(hide_password=False))
    for words in (["etf", "add", "MTUM"], ["etf", "show", "MTUM"], ["daily", "run"], ["beat"]):
        assert run_here(app, *words).complains("portfolio db upgrade")
    assert list(environment.iterdir()) == []


def test_a_backfill_and_an_update_of_rates_can_be_waited_for(environment: Path, engine: Engine) -> None:
    range_of_days = ("--from", "2022-12-01", "--to", "2022-12-16")
    with process(environment, "worker", "--pool", "solo", "--concurrency", "1", ready=" ready."):
        backfill = run_here(app, "rates", "backfill", *range_of_days, "-c", "USD", "--wait")
        few = run_here(app, "rates", "backfill", "--from", "2022-12-15", "--to", "2022-12-16", "--wait")
        update = run_here(app, "rates", "update", "2022-12-17", "--wait")

    assert (backfill.code, backfill.out.splitlines()[-1]) == (0, "12 of 12 COMPLETED")
    assert few.out.splitlines()[-2:] == ["exchange_rate 11: COMPLETED", "exchange_rate 12: COMPLETED"]
    assert update.complains("exchange_rate ", "is FAILED: NothingPublished", "2022-12-17 is a Saturday")
