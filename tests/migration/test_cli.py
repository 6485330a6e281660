"""``tasktrail migrate`` as an operator uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tasktrail.cli.app import app
from tests.commands import Outcome, program, run_here
from tests.migration.legacy import create_legacy, run_sql
from tests.waiting import until

SHOP = """
from celery import Celery
from tasktrail import Settings, Trail
from tests.support import SCHEMA

trail = Trail(Celery("shop"), Settings.load(), schema=SCHEMA)
not_a_plan = 7
"""

Run = Callable[..., Outcome]


@pytest.fixture
def shop(
    project_folder: Path, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with an application, on a database with legacy tables."""
    create_legacy(engine)
    (project_folder / "migrating_shop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", database_url)
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TASKTRAIL_APP", "migrating_shop:trail")
    monkeypatch.setenv("TASKTRAIL_PLAN", "tests.migration.legacy:PLAN")
    yield project_folder
    sys.modules.pop("migrating_shop", None)


@pytest.fixture
def migrate(shop: Path) -> Run:
    return lambda *words: run_here(app, "migrate", *words)


def copied(migrate: Run) -> None:
    for step in ("plan", "expand", "sync", "backfill"):
        assert migrate(step).code == 0, step


def test_step_by_step_to_a_verified_copy(migrate: Run) -> None:
    planned = migrate("plan")
    assert (planned.code, planned.err) == (0, "")
    assert "public.old_orders.details: json, nullable" in planned.out
    assert "old_orders: 14 rows = 3 migrated + 2 consolidated + 8 quarantined + 1 archived" in planned.out
    assert migrate("expand").out == "the new tables are ready\n"
    assert migrate("expand").out == "they were ready already\n"
    assert migrate("sync").out == "the triggers are on\n0 changes applied\n"
    done = migrate("backfill")
    assert "old_jobs: 12 rows = 9 migrated + 0 consolidated + 3 quarantined + 0 archived" in done.out
    verified = migrate("verify")

    assert (verified.code, verified.out.count("0 differ")) == (0, 3)
    assert migrate("status").out.startswith("verified; go on with `tasktrail migrate parallel`\n0 changes")


def test_the_account_is_printed_as_a_table_as_json_and_as_csv(migrate: Run) -> None:
    copied(migrate)

    assert "bad_currency" in migrate("account").out
    found = json.loads(migrate("account", "--json").out)
    assert found["balanced"] is True
    assert {
        "table": "old_orders",
        "kind": "ping",
        "fate": "archived",
        "reason": "not_a_job",
        "rows": 1,
    } in found["lines"]
    assert "old_orders,ping,archived,not_a_job,1" in migrate("account", "--csv").out


def test_a_difference_is_named_and_ends_with_exit_code_2(migrate: Run, engine: Engine) -> None:
    copied(migrate)
    run_sql(engine, "UPDATE tracking.order_tracking SET attempts = 9 WHERE day = '2024-03-02'")
    found = migrate("verify")

    assert found.code == 2
    assert (
        """old_orders orders ["2024-03-02", "USD"]: different attempts: '0' expected, '9' found"""
        in found.out
    )
    assert json.loads(migrate("verify", "--json").out)[1]["differing"] == 1


def test_a_row_that_is_not_accounted_for_ends_with_exit_code_2(migrate: Run, engine: Engine) -> None:
    copied(migrate)
    run_sql(engine, "DELETE FROM tracking.tasktrail_ledger WHERE source_key = '4'")
    found = migrate("account")

    assert found.code == 2
    assert "1 unaccounted" in found.out


def test_a_step_out_of_order_is_one_clear_line(migrate: Run) -> None:
    assert migrate("backfill").complains("go on with `tasktrail migrate plan`")


def test_a_changed_plan_is_a_closed_gate(migrate: Run, monkeypatch: pytest.MonkeyPatch, shop: Path) -> None:
    migrate("plan")
    (shop / "other_plan.py").write_text(
        "from dataclasses import replace\nfrom tests.migration.legacy import *\n"
        "PLAN = MigrationPlan(name='shop', tables=(replace(ORDER_TABLE, rule_version=2), JOB_TABLE))",
        encoding="utf-8",
    )
    found = migrate("expand", "--plan", "other_plan:PLAN")
    sys.modules.pop("other_plan", None)

    assert found.code == 2
    assert "look at it again with `tasktrail migrate plan`" in found.err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "no plan is named"),
        ("shop", "write module:attribute"),
        ("no_such:PLAN", "importing it failed"),
        ("migrating_shop:not_a_plan", "it is of type int, but must be a MigrationPlan"),
        ("migrating_shop:nothing", "it is of type NoneType"),
    ],
)
def test_a_plan_that_is_none_is_one_clear_line(migrate: Run, name: str, reason: str) -> None:
    assert migrate("plan", "--plan", name).complains(reason)


def test_a_table_may_be_copied_before_the_others(migrate: Run) -> None:
    for step in ("plan", "expand", "sync"):
        migrate(step)
    assert "14 pending" in migrate("backfill", "--table", "old_jobs").out
    assert migrate("status").out.startswith("syncing; go on with `tasktrail migrate backfill`")
    assert migrate("backfill", "--table", "no_such").complains(
        "has no table 'no_such'; it has old_orders, old_jobs"
    )
    migrate("backfill", "--table", "old_orders")

    assert migrate("status").out.startswith("backfilled; go on with `tasktrail migrate verify`")


def test_pause_and_resume(migrate: Run) -> None:
    for step in ("plan", "expand", "sync"):
        migrate(step)
    assert migrate("pause").out == "paused; go on with `tasktrail migrate resume`\n"
    assert migrate("backfill").complains("Somebody asked the copying to pause")
    assert migrate("status").out.startswith("syncing, paused; go on with")
    assert migrate("resume").out == "resumed; go on with `tasktrail migrate backfill`\n"

    assert migrate("backfill").code == 0


def test_quarantine_from_the_command_line(migrate: Run) -> None:
    copied(migrate)
    assert "old_orders bad_day: 2 rows, 0 accepted; e.g. 7" in migrate("quarantine", "list").out
    assert {
        "table": "old_orders",
        "reason": "no_time",
        "rows": 1,
        "accepted": 0,
        "example": "11",
    } in json.loads(migrate("quarantine", "list", "--json").out)
    assert '"day":"2024-02-30"' in migrate("quarantine", "show", "old_orders", "7").out
    assert migrate("quarantine", "show", "old_orders", "777").complains("the ledger has no such row")
    accepted = migrate("quarantine", "accept", "old_orders", "--reason", "bad_day", "--note", "test data")
    assert accepted.out == "2 rows accepted\n"
    assert "bad_day: 2 rows, 2 accepted" in migrate("quarantine", "list").out

    assert (
        migrate("quarantine", "redrive", "old_orders").out
        == "8 rows were driven, 0 are quarantined no more\n"
    )


def test_every_step_can_be_taken_back(migrate: Run) -> None:
    copied(migrate)
    for step in ("backfill", "sync", "expand"):
        assert migrate(step, "--undo").code == 0, step

    assert migrate("status", "--json").code == 0
    assert json.loads(migrate("status", "--json").out)["phase"] == "planned"


def test_following_ends_with_sigterm_and_has_applied_what_came(
    migrate: Run, shop: Path, engine: Engine
) -> None:
    copied(migrate)
    process = subprocess.Popen(
        [program("tasktrail"), "migrate", "sync", "--follow"],
        cwd=shop,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        run_sql(engine, "UPDATE old_orders SET state = 'ok' WHERE id = 4")

        def arrived() -> bool:
            with engine.connect() as db:
                status = "SELECT status FROM tracking.order_tracking WHERE day = '2024-03-02'"
                return db.exec_driver_sql(status).scalar() == "COMPLETED"

        until(arrived, seconds=30)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == 0
    assert "carrying changes over" in out


def test_cutover_and_rollback_by_command(migrate: Run, engine: Engine) -> None:
    copied(migrate)
    assert migrate("verify").code == 0
    early = migrate("cutover", "--yes")
    assert (early.code, "go on with `tasktrail migrate parallel`" in early.err) == (1, True)
    run_sql(engine, "UPDATE tracking.tasktrail_migrations SET phase = 'parallel'")
    closed = migrate("cutover", "--yes", "--clean-passes", "0")
    assert (closed.code, "quarantined as unknown_state" in closed.err) == (2, True)
    checked = migrate("cutover", "--check", "--clean-passes", "0")
    assert (checked.code, checked.out.count("closed: ")) == (2, 7)
    run_sql(engine, "UPDATE tracking.tasktrail_raw SET accepted_at = now()")
    checked = migrate("cutover", "--check", "--clean-passes", "0")
    assert (checked.code, checked.out) == (
        0,
        "the gate is open; go on with `tasktrail migrate cutover --yes`\n",
    )
    assert migrate("cutover", "--clean-passes", "0").code == 2
    turned = migrate("cutover", "--yes", "--clean-passes", "0", "--window", "90m")
    assert (turned.code, turned.out) == (0, "the new tables are the truth\n")
    assert migrate("cutover", "--yes").out == "the new tables were the truth already\n"
    assert migrate("status").out.startswith("cut_over; go on with `tasktrail migrate archive`\n")
    assert migrate("verify").code == 1
    run_sql(engine, "INSERT INTO tracking.job_tracking (payload, status) VALUES ('x', 'COMPLETED')")
    assert migrate("rollback").code == 2
    checked = migrate("rollback", "--check")
    assert (checked.code, checked.out.partition(";")[0]) == (0, "the legacy tables can hold everything")
    assert json.loads(migrate("rollback", "--check", "--json").out) == []
    assert migrate("sync").out == "the triggers were on already\n0 changes applied\n"
    assert migrate("rollback", "--yes").out == "the legacy tables are the truth\n"
    assert migrate("rollback", "--yes").out == "the legacy tables were the truth already\n"


def test_each_step_says_whether_it_could_be_taken_and_changes_nothing(migrate: Run, engine: Engine) -> None:
    early = migrate("expand", "--check")
    assert (early.code, "go on with `tasktrail migrate plan`" in early.out) == (2, True)
    migrate("plan")
    for step in ("sync", "backfill", "parallel", "archive"):
        refused = migrate(step, "--check")
        assert (refused.code, "go on with `tasktrail migrate expand`" in refused.out) == (2, True), step
    assert migrate("expand", "--check").out == "nothing is in the way\n"
    assert json.loads(migrate("status", "--json").out)["phase"] == "planned"
    run_sql(engine, "ALTER TABLE old_jobs DROP COLUMN payload; UPDATE tracking.tasktrail_migrations "
            "SET fingerprint = 'x'")  # fmt: skip
    refused = migrate("expand", "--check")
    assert refused.out.count("in the way: ") == 2
    assert "the plan was changed since its last dry run" in refused.out
    assert "public.old_jobs lacks the column payload" in refused.out


def test_the_status_says_what_is_not_as_the_phase_promises(migrate: Run, engine: Engine) -> None:
    copied(migrate)
    assert migrate("status").code == 0
    run_sql(engine, "ALTER TABLE old_jobs DISABLE TRIGGER tasktrail_update_old_jobs; "
            "DROP VIEW tracking.tasktrail_account_shop")  # fmt: skip
    wrong = migrate("status")
    assert (wrong.code, wrong.out.count("not as it should be: ")) == (2, 2)
    assert len(json.loads(migrate("status", "--json").out)["troubles"]) == 2
    assert migrate("sync").code == 0
    assert migrate("status").code == 0
