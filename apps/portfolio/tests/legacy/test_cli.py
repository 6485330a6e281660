"""``portfolio legacy``, with good and with bad input; and the application without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

import portfolio
from portfolio.cli import app
from tests.commands import run_here

SOURCE = Path(portfolio.__file__).parent


@pytest.fixture
def _servers(
    database_url: str, redis_url: str, project_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", database_url)
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)


@pytest.mark.usefixtures("_servers")
def test_rows_are_generated_and_counted(engine: Engine) -> None:
    outcome = run_here(app, "legacy", "generate", "--rows", "300", "--dirty", "0.1", "--until", "2026-10-30")
    with engine.connect() as db:
        tasks = db.exec_driver_sql("SELECT count(*) FROM task_status").scalar()

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == "task_status: 150 rows, 15 of them dirty"
    assert outcome.out.splitlines()[-1] == "300 rows until 2026-10-30, seed 1"
    assert tasks == 150


@pytest.mark.usefixtures("_servers")
def test_a_table_with_rows_and_a_missing_table_are_named(engine: Engine) -> None:
    run_here(app, "legacy", "generate", "--rows", "10")

    assert run_here(app, "legacy", "generate", "--rows", "10").complains("task_status holds rows", "--append")

    with engine.begin() as db:
        db.exec_driver_sql("DROP TABLE etf_updates")

    assert run_here(app, "legacy", "generate", "--rows", "10").complains("no table etf_updates")
    assert run_here(app, "legacy", "simulate", "--seconds", "1").complains("no table etf_updates")


@pytest.mark.usefixtures("_servers")
def test_writes_that_fail_end_the_simulation_with_an_error(engine: Engine) -> None:
    with engine.begin() as db:
        db.exec_driver_sql("ALTER TABLE daily_update_tracking RENAME attempted TO tried")
    outcome = run_here(app, "legacy", "simulate", "--rate", "60", "--seconds", "1.5", "--processes", "1")

    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert "writes of the old workers failed; the first: " in outcome.err
    assert "UndefinedColumn: " in outcome.out


@pytest.mark.parametrize(
    "words",
    [
        ("generate",),
        ("generate", "--rows", "0"),
        ("generate", "--rows", "many"),
        ("generate", "--rows", "1", "--dirty", "2"),
        ("generate", "--rows", "1", "--until", "30.10.2026"),
        ("simulate", "--rate", "0"),
        ("simulate", "--processes", "0"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(words: tuple[str, ...]) -> None:
    assert run_here(app, "legacy", *words).code == 2


def test_a_database_that_does_not_answer_is_one_line(
    project_folder: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)

    assert run_here(app, "legacy", "generate", "--rows", "1").complains("127.0.0.1")
    assert run_here(app, "legacy", "simulate", "--seconds", "1").complains("127.0.0.1")


def test_without_its_folder_everything_else_is_there(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "portfolio", ignore=shutil.ignore_patterns("legacy", "__pycache__"))
    program = (
        "import importlib, pkgutil, sys, portfolio\n"
        "from portfolio.cli import main\n"
        "for module in pkgutil.walk_packages(portfolio.__path__, 'portfolio.'):\n"
        "    if not module.name.startswith(('portfolio.alembic', 'portfolio.worker', 'portfolio.demo_')):\n"
        "        importlib.import_module(module.name)\n"
        "print(portfolio.__file__)\n"
        "sys.argv = ['portfolio', *sys.argv[1:]]\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    help_text, used = (
        subprocess.run(
            [sys.executable, "-c", program, *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        for words in (["--help"], ["legacy", "generate", "--rows", "1"])
    )

    assert (help_text.returncode, help_text.stderr) == (0, "")
    assert help_text.stdout.startswith(str(tmp_path))
    assert "rates" in help_text.stdout
    assert "legacy" not in help_text.stdout.split("\n", 1)[1]
    assert used.returncode == 2
    assert "No such command 'legacy'" in used.stderr


def test_the_old_system_is_a_group_of_commands() -> None:
    outcome = run_here(app, "legacy", "--help")

    assert outcome.code == 0
    assert "generate" in outcome.out
    assert "simulate" in outcome.out
