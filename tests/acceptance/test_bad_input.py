"""Whatever is wrong around the ``tasktrail`` command is one clear line, exit code 1, and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect

from conftest import MakeDatabase
from tasktrail import DatabaseUnavailable
from tasktrail.cli import run
from tasktrail.cli.app import app
from tests.commands import run_apart, run_here
from tests.rows import add_job

ROOT = Path(__file__).parents[2]
NOWHERE = "postgresql://user:secret@127.0.0.1:1/shop"
MODULE = """
from celery import Celery
from tests.support import SCHEMA, JobTrackingService
from tasktrail import Settings, Trail

trail = Trail(Celery("bad_input_shop"), Settings.load(), schema=SCHEMA)

@trail.task(JobTrackingService, name="shop.job")
def job(run): ...
"""
MAINTAIN = ("--app", "bad_input_shop:trail", "maintain")
ASK = ("Is it running, and is TASKTRAIL_DATABASE_URL right?",)
BAD_SETTINGS = [
    ("TASKTRAIL_DATABASE_URL", "nonsense", ["is not a database URL; write postgresql://"]),
    ("TASKTRAIL_DATABASE_URL", "mysql://user:secret@db/shop", ["'mysql'", "postgresql:// only"]),
    ("TASKTRAIL_BROKER_URL", "kafka://user:secret@mq", ["'kafka'", "write redis://", "amqp://"]),
    ("TASKTRAIL_BROKER_URL", "nonsense", ["write redis://"]),
    ("TASKTRAIL_BROKER_URL", "redis://:secret@mq:port/0", ["has no usable host and port", "write redis://"]),
    ("TASKTRAIL_BROKER_URL", "redis://:secret@mq:99999999/0", ["has no usable host and port"]),
    (
        "TASKTRAIL_BROKER_URL",
        "redis://:secret@mq/first",
        ["names a database of Redis", "redis://host:6379/0"],
    ),
    ("TASKTRAIL_BROKER_URL", "amqp://user:secret@[bad", ["has no usable host and port"]),
    ("TASKTRAIL_BROKER_URL", "redis://:6/secret@mq/0", ["names a database of Redis"]),
    ("TASKTRAIL_BROKER_URL", "redis://:secret/6@mq/0", ["with %2F for a / in the password"]),
    ("TASKTRAIL_BROKER_URL", "redis+socket://", ["names no socket", "/path/to/redis.sock"]),
    ("TASKTRAIL_CONNECT_TIMEOUT", "soon", ["is 'soon': input should be a valid integer"]),
    ("TASKTRAIL_LEASE", "1", ["at least two heartbeat intervals of 10 s"]),
    ("TASKTRAIL_LEASE", "nan", ["is 'nan': input should be a finite number"]),
    ("TASKTRAIL_RETENTION", "-1", ["should be greater than 0"]),
    ("TASKTRAIL_MAINTENANCE", "perhaps", ["should be a valid boolean"]),
]


@pytest.fixture(autouse=True)
def shop(project_folder: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Path]:
    """A folder with an application, as the working directory."""
    (project_folder / "bad_input_shop.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)
    yield project_folder
    sys.modules.pop("bad_input_shop", None)


def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def content(engine: Engine) -> dict[str, list[Any]]:
    """Return all rows of all tables."""
    tables = [(schema, name) for schema in ("public", "tracking") for name in _tables(engine, schema)]
    with engine.connect() as db:
        return {
            f"{schema}.{name}": sorted(map(repr, db.exec_driver_sql(f"SELECT * FROM {schema}.{name}")))
            for schema, name in tables
        }


def _tables(engine: Engine, schema: str) -> list[str]:
    inspector = inspect(engine)
    return inspector.get_table_names(schema) if schema in inspector.get_schema_names() else []


@pytest.mark.parametrize(
    ("database", "reasons"),
    [
        (NOWHERE, ["127.0.0.1:1/shop", *ASK]),
        ("postgresql://user@/shop?host=/no/such/folder", ["No such file or directory", *ASK]),
        ("postgresql://user@127.0.0.1:99999999/shop", ["invalid port number", *ASK]),
        ("postgresql://user@127.0.0.1:1/shop?colour=red", ['invalid connection option "colour"']),
    ],
)
def test_a_database_that_cannot_be_reached_is_named(
    monkeypatch: pytest.MonkeyPatch, database: str, reasons: list[str]
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", database)
    outcome = run_here(app, *MAINTAIN)

    assert outcome.complains(*reasons)
    assert "secret" not in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"database": "nosuch"}, 'database "nosuch" does not exist'),
        ({"username": "nobody"}, 'role "nobody" does not exist'),
    ],
)
def test_a_database_or_a_user_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, part: dict[str, str], reason: str
) -> None:
    wrong = engine.url.set(**part).render_as_string(hide_password=False)
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", wrong)

    assert run_here(app, *MAINTAIN).complains(reason, *ASK)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            "DELETE FROM tracking.tasktrail_version WHERE version > 1",
            "its schema version is 1, this release needs",
        ),
        ("DELETE FROM tracking.tasktrail_version", "its schema version is unknown"),
        ("DROP TABLE tracking.tasktrail_version", "the table tracking.tasktrail_version is missing"),
        ("DROP TABLE tracking.job_tracking", "the table tracking.job_tracking is missing"),
        (
            "ALTER TABLE tracking.job_tracking DROP COLUMN worker",
            "tracking.job_tracking lacks the columns worker",
        ),
    ],
)
def test_a_schema_that_does_not_fit_is_refused_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, damage: str, reason: str
) -> None:
    add_job(engine)
    with engine.begin() as db:
        db.exec_driver_sql(damage)
    before = content(engine)
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", url(engine))
    outcome = run_here(app, *MAINTAIN)

    assert outcome.complains("the database is not ready", reason, "Apply the pending migrations")
    assert outcome.out == ""
    assert content(engine) == before != {}


def test_an_empty_database_is_refused_and_stays_empty(
    monkeypatch: pytest.MonkeyPatch, make_database: MakeDatabase
) -> None:
    empty = create_engine(make_database())
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", url(empty))

    assert run_here(app, *MAINTAIN).complains("tasktrail_version is missing", "job_tracking is missing")
    assert content(empty) == {}
    empty.dispose()


@pytest.mark.parametrize("command", [MAINTAIN, ("dev", "up"), ("dev", "down"), ("dev", "status")])
@pytest.mark.parametrize(("name", "value", "reasons"), BAD_SETTINGS)
def test_a_bad_setting_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
    shop: Path,
    command: tuple[str, ...],
    name: str,
    value: str,
    reasons: list[str],
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", NOWHERE)
    monkeypatch.setenv(name, value)
    outcome = run_here(app, *command)

    assert outcome.complains(name, *reasons)
    assert "secret" not in outcome.err
    assert not (shop / ".tasktrail").exists()


def test_a_folder_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKTRAIL_BROKER_URL")
    monkeypatch.setenv("TASKTRAIL_HOME", "/dev/null/home")

    assert run_here(app, "dev", "up").complains("/dev/null/home/postgres", "Not a directory")


def test_the_traceback_is_there_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", NOWHERE)

    with pytest.raises(DatabaseUnavailable):
        run(app, [*MAINTAIN, "--traceback"])


def test_so_it_is_in_a_process_of_its_own(shop: Path) -> None:
    environment = {"TASKTRAIL_DATABASE_URL": NOWHERE, "PYTHONPATH": str(ROOT)}
    short = run_apart("tasktrail", *MAINTAIN, cwd=shop, env=environment)
    long = run_apart("tasktrail", "--traceback", *MAINTAIN, cwd=shop, env=environment)

    assert short.complains("the database at", *ASK)
    assert (short.out, long.out, long.code) == ("", "", 1)
    assert long.err.startswith("Traceback (most recent call last):")
    assert long.err.splitlines()[-1].startswith("tasktrail.errors.DatabaseUnavailable: the database at")
    assert "secret" not in short.err + long.err
