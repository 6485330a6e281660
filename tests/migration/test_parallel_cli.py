"""``tasktrail migrate parallel``, ``compare`` and ``drift`` as an operator uses them."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tasktrail.cli.app import app
from tests.commands import program, run_here
from tests.migration.legacy import run_sql
from tests.migration.test_cli import Run, copied, migrate, shop  # noqa: F401  # fixtures
from tests.waiting import until

DAMAGE = "UPDATE tracking.order_tracking SET error_message = '', attempts = 3 WHERE day = '2024-03-02'"
REPAIR = "UPDATE old_orders SET note = note WHERE id = 4"


@pytest.fixture
def parallel(migrate: Run) -> Run:  # noqa: F811  # a fixture
    """The command, on a migration in its parallel run."""
    copied(migrate)
    assert migrate("verify").code == 0
    assert migrate("parallel").code == 0
    return migrate


def test_the_parallel_run_begins_and_is_stopped(parallel: Run) -> None:
    assert parallel("parallel", "--window", "1h").out.startswith("it is running already; cutover is possible")
    assert parallel("status").out.startswith("parallel; go on with `tasktrail migrate cutover --yes`")
    assert parallel("parallel", "--undo").out.startswith("the parallel run is stopped")
    assert parallel("parallel", "--undo").complains("cannot stop the parallel run now")
    assert parallel("parallel", "--window", "12h").out.startswith("the parallel run began; cutover")


def test_drift_is_shown_until_it_is_healed_and_then_as_transient(parallel: Run, engine: Engine) -> None:
    assert parallel("compare").code == 0
    assert (parallel("drift").code, parallel("drift").out) == (0, "no drift\n")
    run_sql(engine, DAMAGE)
    found = parallel("compare")
    assert found.code == 2
    assert "2 mismatches, 0 known, 0 healed" in found.out
    assert parallel("drift").code == 2
    run_sql(engine, REPAIR)
    assert "0 mismatches, 0 known, 2 healed" in parallel("compare").out
    assert parallel("drift").out == "no drift\n"

    seen = parallel("drift", "--all")
    assert seen.code == 0
    assert seen.out.count("transient") == 2
    assert seen.out.count(" looked at, ") == 3


def test_drift_is_exported(parallel: Run, engine: Engine) -> None:
    run_sql(engine, DAMAGE)
    compared = json.loads(parallel("compare", "--json").out)
    rows = list(csv.DictReader(io.StringIO(parallel("drift", "--csv").out)))
    listed = json.loads(parallel("drift", "--json", "--all").out)

    assert (compared["clean"], compared["pass"]["mismatches"], compared["warnings"]) == (False, 2, [])
    assert [
        (row["table"], row["key"], row["column"], row["expected"], row["found"], row["state"]) for row in rows
    ] == [
        ("old_orders", 'orders ["2024-03-02", "USD"]', "attempts", "0", "3", "open"),
        ("old_orders", 'orders ["2024-03-02", "USD"]', "error_message", "", "", "open"),
    ]
    assert [one["expected"] for one in listed["drift"]] == ["0", None]
    assert len(listed["passes"]) == 1
    assert len(json.loads(parallel("drift", "--json", "--limit", "1").out)["drift"]) == 1
    assert parallel("compare", "--csv").out.startswith("table,way,key,what,column,expected,found,passes")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("soon", "write a whole number and d, h, m or s, e.g. 7d or 30m (got 'soon')"),
        ("7", "write a whole number"),
        ("-1d", "write a whole number"),
        ("99999d", "must be 3650d or less"),
    ],
)
def test_a_window_that_is_no_length_of_time_is_one_clear_line(parallel: Run, text: str, reason: str) -> None:
    assert parallel("parallel", f"--window={text}").complains("--window: ", reason)


def test_a_schedule_that_makes_no_sense_is_one_clear_line(parallel: Run) -> None:
    assert parallel("sync", "--follow", "--compare-every", "0s").complains("must be 1s or more")
    assert parallel("sync", "--compare-every", "1h").complains("it belongs to --follow")
    assert run_here(app, "maintain", "--plan", "", "--compare-every", "1h").complains("no plan is named")


def test_comparing_before_the_copy_names_the_step_to_go_on_with(migrate: Run) -> None:  # noqa: F811
    assert migrate("compare").complains("go on with `tasktrail migrate plan`")
    assert migrate("drift").complains("go on with `tasktrail migrate plan`")


@pytest.mark.parametrize("words", [("migrate", "sync", "--follow"), ("maintain",)], ids=" ".join)
def test_a_process_that_runs_on_compares_on_its_schedule(
    parallel: Run, project_folder: Path, engine: Engine, words: tuple[str, ...]
) -> None:
    process = subprocess.Popen(
        [program("tasktrail"), *words, "--compare-every", "1s"],
        cwd=project_folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def count(what: str) -> int:
        with engine.connect() as db:
            return int(db.exec_driver_sql(f"SELECT count(*) FROM tracking.{what}").scalar() or 0)

    try:
        until(lambda: count("tasktrail_comparisons WHERE mismatches = 0"), seconds=60)
        run_sql(engine, DAMAGE)
        until(lambda: count("tasktrail_drift WHERE healed_at IS NULL") == 2, seconds=60)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == 0
