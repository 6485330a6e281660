"""Whatever is wrong around the ``portfolio`` command is one clear line, exit code 1, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from conftest import MakeDatabase
from portfolio.cli import app
from portfolio.database import upgrade
from tasktrail import DatabaseUnavailable
from tasktrail.cli import run
from tests.commands import run_apart, run_here

NOWHERE = "postgresql://user:secret@127.0.0.1:1/portfolio"
ASK = "Is it running, and is TASKTRAIL_DATABASE_URL right?"

UPGRADE = ["db", "upgrade"]
UPDATE = ["rates", "update", "2026-10-30"]
BACKFILL = ["rates", "backfill", "--from", "2026-10-01", "--to", "2026-10-30"]
WORKER = ["worker"]
DEMO = ["demo"]
ALL = [UPGRADE, UPDATE, BACKFILL, WORKER, DEMO]
OF_A_READY_DATABASE = [UPDATE, BACKFILL, WORKER]


@pytest.fixture(autouse=True)
def environment(project_folder: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Path:
    """An empty folder as the working directory, and a broker; no worker is ever started."""
    monkeypatch.setattr("portfolio.cli.run_in_foreground", lambda *_: pytest.fail("a worker was started"))
    for name in ("PORTFOLIO_RATES_SOURCE", "PORTFOLIO_RETRY_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)
    return project_folder


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Engine:
    """The migrated database, in the environment, with a rate and a row in it."""
    with engine.begin() as db:
        db.exec_driver_sql("INSERT INTO exchange_rates VALUES ('2026-10-30', 'USD', 1.1172)")
        db.exec_driver_sql(
            "INSERT INTO tracking.exchange_rate_update_tracking"
            " (update_date, base_currency, target_currencies, source)"
            " VALUES ('2026-10-29', 'EUR', '{USD}', 'by hand')"
        )
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    return engine


def content(engine: Engine) -> list[str]:
    """Return the rows of the application's tables, and the revision."""
    tables = ("exchange_rates", "tracking.exchange_rate_update_tracking", "alembic_version")
    with engine.connect() as db:
        return [repr(row) for table in tables for row in db.exec_driver_sql(f"SELECT * FROM {table}")]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_a_database_that_cannot_be_reached_is_named(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", NOWHERE)
    outcome = run_here(app, *command)

    assert outcome.complains("127.0.0.1:1/portfolio", ASK)
    assert "secret" not in outcome.err


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_a_database_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, command: list[str]
) -> None:
    absent = engine.url.set(database="nosuch").render_as_string(hide_password=False)
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", absent)

    assert run_here(app, *command).complains('database "nosuch" does not exist', ASK)


@pytest.mark.parametrize("broker", ["redis://:secret@127.0.0.1:1/0", "amqp://user:secret@127.0.0.1:1//"])
@pytest.mark.parametrize("command", [UPDATE, BACKFILL, WORKER, DEMO], ids=" ".join)
def test_a_broker_that_cannot_be_reached_is_named_and_no_row_is_written(
    monkeypatch: pytest.MonkeyPatch, use: Engine, command: list[str], broker: str
) -> None:
    before = content(use)
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", broker)
    outcome = run_here(app, *command)

    assert outcome.complains("127.0.0.1:1/", "Is it running, and is TASKTRAIL_BROKER_URL right?")
    assert "secret" not in outcome.err
    assert content(use) == before


@pytest.mark.parametrize("command", OF_A_READY_DATABASE, ids=" ".join)
def test_a_database_without_migrations_is_refused_with_the_command_that_applies_them(
    monkeypatch: pytest.MonkeyPatch, bare_engine: Engine, command: list[str]
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", bare_engine.url.render_as_string(hide_password=False))

    assert run_here(app, *command).complains("without a single migration", "run `portfolio db upgrade`")
    with bare_engine.connect() as db:
        assert db.exec_driver_sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").all() == []


@pytest.fixture(scope="session", params=["0001", "0002"])
def outdated_template(request: pytest.FixtureRequest, make_database: MakeDatabase) -> str:
    """Name of a database at an older revision."""
    engine = create_engine(make_database())
    upgrade(engine, request.param)
    engine.dispose()
    return engine.url.database or ""


@pytest.fixture
def outdated(
    monkeypatch: pytest.MonkeyPatch, make_database: MakeDatabase, outdated_template: str
) -> Iterator[Engine]:
    """A database at an older revision, in the environment."""
    url = make_database(outdated_template)
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("command", OF_A_READY_DATABASE, ids=" ".join)
def test_a_database_at_an_older_revision_is_refused_with_the_command_that_helps(
    outdated: Engine, command: list[str]
) -> None:
    refused = run_here(app, *command)

    assert refused.complains(
        "the database is at revision 000", "needs revision", "run `portfolio db upgrade`"
    )


def test_the_command_that_the_refusal_names_does_help(outdated: Engine) -> None:
    assert run_here(app, *UPDATE).code == 1
    assert run_here(app, *UPGRADE).code == 0
    assert run_here(app, *UPDATE).out == "exchange_rate 1: created, PENDING\n"


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_a_database_that_is_newer_than_this_release_is_left_alone(use: Engine, command: list[str]) -> None:
    with use.begin() as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    before = content(use)

    assert run_here(app, *command).complains("at revision 9999, which this release", "install the release")
    assert content(use) == before


@pytest.mark.parametrize("command", OF_A_READY_DATABASE, ids=" ".join)
def test_a_table_changed_by_hand_is_refused(use: Engine, command: list[str]) -> None:
    with use.begin() as db:
        db.exec_driver_sql("ALTER TABLE tracking.exchange_rate_update_tracking DROP COLUMN worker")
    before = content(use)

    assert run_here(app, *command).complains("lacks the columns worker", "Put back what was changed")
    assert content(use) == before


@pytest.mark.parametrize("command", ALL, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TASKTRAIL_DATABASE_URL", "nonsense", "is not a database URL; write postgresql://"),
        ("TASKTRAIL_DATABASE_URL", "mysql://user:secret@db/x", "works on postgresql:// only"),
        ("TASKTRAIL_BROKER_URL", "kafka://user:secret@mq", "write redis://host:6379/0 or amqp://user@host//"),
        ("TASKTRAIL_LEASE", "1", "at least two heartbeat intervals"),
        ("TASKTRAIL_CONNECT_TIMEOUT", "soon", "should be a valid integer"),
    ],
)
def test_a_bad_setting_of_the_library_is_named(
    monkeypatch: pytest.MonkeyPatch, use: Engine, command: list[str], name: str, value: str, reason: str
) -> None:
    before = content(use)
    monkeypatch.setenv(name, value)
    outcome = run_here(app, *command)

    assert outcome.complains(name, reason)
    assert "secret" not in outcome.err
    assert content(use) == before


@pytest.mark.parametrize("command", [UPDATE, BACKFILL, WORKER], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PORTFOLIO_RATES_SOURCE", "oracle", "should be 'bundled' or 'live' (got 'oracle')"),
        ("PORTFOLIO_RETRY_BASE", "0", "should be greater than 0 (got '0')"),
        ("PORTFOLIO_RETRY_BASE", "inf", "should be less than or equal to 86400"),
        ("PORTFOLIO_RETRY_BASE", "a minute", "should be a valid number"),
    ],
)
def test_a_bad_setting_of_the_application_is_named(
    monkeypatch: pytest.MonkeyPatch, use: Engine, command: list[str], name: str, value: str, reason: str
) -> None:
    before = content(use)
    monkeypatch.setenv(name, value)

    assert run_here(app, *command).complains(f"{name}: Input ", reason)
    assert content(use) == before


@pytest.mark.parametrize(
    ("currencies", "reason"),
    [
        (["USDX"], "target_currencies[0]: is 4 characters long, 3 fit"),
        (["USD", "U1"], "target_currencies[1]: must have the form"),
        (["USD", "usd"], "target_currencies: names USD more than once"),
        (["EUR"], "target_currencies: holds the base currency"),
        ([""], "target_currencies[0]: must have the form"),
    ],
)
@pytest.mark.parametrize("command", [UPDATE, BACKFILL], ids=" ".join)
def test_bad_currencies_are_named_by_their_field(
    use: Engine, command: list[str], currencies: list[str], reason: str
) -> None:
    before = content(use)
    options = [word for currency in currencies for word in ("--currency", currency)]

    assert run_here(app, *command, *options).complains(reason)
    assert content(use) == before


def test_a_range_that_ends_before_it_starts_is_refused_before_anything_starts(environment: Path) -> None:
    outcome = run_here(app, "rates", "backfill", "--from", "2026-10-30", "--to", "2026-10-01")

    assert outcome.complains("from: is after the end of the range, 2026-10-01 (got '2026-10-30')")
    assert list(environment.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, use: Engine) -> None:
    before = content(use)
    monkeypatch.setenv("TASKTRAIL_HOME", "/dev/null/home")

    assert run_here(app, *DEMO).complains("/dev/null/home/demo: Not a directory")
    assert content(use) == before


@pytest.mark.parametrize(
    "words",
    [
        ["rates", "update", "2026-02-30"],
        ["rates", "update", "tomorrow"],
        ["rates", "update", "30.10.2026"],
        ["rates", "update"],
        ["rates", "backfill", "--from", "2026-10-01"],
        ["rates", "backfill", "--from", "2026-10-01", "--to", "2026-02-30"],
        ["worker", "--concurrency", "0"],
        ["worker", "--pool", "gevent"],
        ["worker", "--loglevel", "LOUD"],
        ["db", "sideways"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_understood_is_a_usage_error(
    environment: Path, words: list[str]
) -> None:
    outcome = run_here(app, *words)

    assert outcome.code == 2
    assert "Usage: " in outcome.err
    assert "Traceback" not in outcome.err
    assert list(environment.iterdir()) == []


def test_the_traceback_is_there_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", NOWHERE)

    with pytest.raises(DatabaseUnavailable):
        run(app, [*UPDATE, "--traceback"])


def test_so_it_is_in_a_process_of_its_own(environment: Path) -> None:
    outcome = run_apart("portfolio", *WORKER, cwd=environment, env={"TASKTRAIL_DATABASE_URL": NOWHERE})

    assert outcome.complains("127.0.0.1:1/portfolio", ASK)
    assert outcome.out == ""


def test_a_plain_celery_worker_without_a_database_ends_with_one_line(environment: Path) -> None:
    outcome = run_apart("celery", "-A", "portfolio.worker", "worker", cwd=environment, env={})

    assert outcome.complains("no database is configured: set TASKTRAIL_DATABASE_URL")
    assert outcome.out == ""
