"""Verification finds what is wrong: each kind of damage, by the ways that must see it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from tasktrail.migration.backfill import Backfill
from tasktrail.migration.session import Session
from tasktrail.migration.verify import Difference
from tasktrail.migration.workspace import Workspace
from tests.migration.legacy import run_sql
from tests.migration.test_backfill import verdicts

MORE = """
    INSERT INTO old_orders (kind, state, day, currency, tags, note, made, touched)
    SELECT 'order', 'ok', (date '2020-01-01' + n)::text, 'EUR', 'a,b,c', 'a note', '2020-01-01', '2020-01-02'
    FROM generate_series(1, 300) n
"""
ONE = "day = '2020-01-11'"
DAMAGES = {
    "a dropped row": (f"DELETE FROM tracking.order_tracking WHERE {ONE}", {"account", "checksum", "twin"}),
    "a doubled row": (
        (
            "INSERT INTO tracking.job_tracking (id, payload, status, next_attempt_at) "
            "SELECT 900, payload, status, NULL FROM tracking.job_tracking WHERE payload = 'job 4'"
        ),
        {"checksum"},
    ),
    "a swapped column": (
        f"UPDATE tracking.order_tracking SET created_at = updated_at, updated_at = created_at WHERE {ONE}",
        {"checksum", "twin"},
    ),
    "a timestamp off by an hour": (
        f"UPDATE tracking.order_tracking SET completed_at = completed_at + interval '1 hour' WHERE {ONE}",
        {"checksum", "twin"},
    ),
    "a cut text": (
        f"UPDATE tracking.order_tracking SET error_message = left(error_message, 5) WHERE {ONE}",
        {"checksum", "twin"},
    ),
    "a wrong status": (
        f"UPDATE tracking.order_tracking SET status = 'FAILED' WHERE {ONE}",
        {"checksum", "twin"},
    ),
    "a changed array order": (
        f"UPDATE tracking.order_tracking SET tags = '{{b,a,c}}' WHERE {ONE}",
        {"checksum", "twin"},
    ),
    "a forgotten entry of the log": (
        "UPDATE tracking.order_tracking SET attempt_log = attempt_log - 0 WHERE day = '2024-03-01'",
        {"checksum", "twin"},
    ),
    "a forgotten ledger row": (
        "DELETE FROM tracking.tasktrail_ledger WHERE source_key = '20' AND table_name = 'old_orders'",
        {"account", "twin"},
    ),
    "a wrong reason": (
        "UPDATE tracking.tasktrail_ledger SET reason = 'bad_day' WHERE reason = 'bad_currency'",
        {"twin"},
    ),
    "a legacy row that changed while nobody looked": (
        (
            "ALTER TABLE old_orders DISABLE TRIGGER ALL; "
            "UPDATE old_orders SET note = 'another note' WHERE id = 20; ALTER TABLE old_orders ENABLE "
            "TRIGGER ALL"
        ),
        {"account", "checksum", "twin"},
    ),
    "a legacy row that went while nobody looked": (
        (
            "ALTER TABLE old_orders DISABLE TRIGGER ALL; "
            "DELETE FROM old_orders WHERE id = 20; ALTER TABLE old_orders ENABLE TRIGGER ALL"
        ),
        {"account", "checksum"},
    ),
}


@pytest.fixture
def copied(workspace: Workspace, db: Session, engine: Engine) -> Workspace:
    from tests.migration.conftest import start_syncing

    run_sql(engine, MORE)
    start_syncing(workspace, db)
    Backfill(workspace).run(db)
    return workspace


@pytest.mark.parametrize("name", DAMAGES)
def test_verification_finds(copied: Workspace, db: Session, engine: Engine, name: str) -> None:
    damage, seen_by = DAMAGES[name]
    assert [verdict.differing for verdict in verdicts(copied, db)] == [0, 0, 0]
    run_sql(engine, damage)
    found = verdicts(copied, db)

    assert {verdict.way for verdict in found if verdict.differing} == seen_by
    assert max(verdict.differing for verdict in found) == 1


def test_a_report_names_the_row_the_column_and_both_values(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, f"UPDATE tracking.order_tracking SET currency = 'CHF', attempts = 7 WHERE {ONE}")
    run_sql(engine, "UPDATE tracking.order_tracking SET attempts = 7, tags = NULL WHERE day = '2020-01-12'")
    _, by_checksum, by_twins = verdicts(copied, db)

    assert by_checksum.differences == [
        Difference("checksum", "old_orders", 'orders ["2020-01-11", "CHF"]', "extra"),
        Difference("checksum", "old_orders", 'orders ["2020-01-11", "EUR"]', "missing"),
        Difference(
            "checksum", "old_orders", 'orders ["2020-01-12", "EUR"]', "different", "tags", "{a,b,c}", None
        ),
        Difference(
            "checksum", "old_orders", 'orders ["2020-01-12", "EUR"]', "different", "attempts", "0", "7"
        ),
    ]
    assert Difference("twin", "old_orders", "25", "different", "attempts", "0", "7") in by_twins.differences
    assert by_twins.differing == 2


def test_a_change_in_the_queue_is_no_difference_but_counted(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_orders SET note = 'changed' WHERE id IN (1, 20)")
    run_sql(
        engine,
        "INSERT INTO old_orders (kind, state, day, currency, made) VALUES ('order', 'ok', "
        "'2024-03-01', 'EUR', '2025-01-01')",
    )
    run_sql(engine, "DELETE FROM old_orders WHERE id = 30")
    found = verdicts(copied, db)

    assert [verdict.differing for verdict in found] == [0, 0, 0]
    assert all(verdict.pending for verdict in found)


def test_a_twin_that_disagrees_with_the_sql_is_heard(copied: Workspace, db: Session) -> None:
    from dataclasses import replace

    from tasktrail.migration.plan import Mapped, Refused
    from tests.migration.conftest import with_tables
    from tests.migration.legacy import JOB_TABLE, ORDER_TABLE, ORDERS, order_twin

    def wrong(row: Any) -> Mapped | Refused:
        said = order_twin(row)
        if isinstance(said, Refused) or row["id"] != 20:
            return said
        return Mapped({**said.values, "attempts": 2}, frozenset({"attempts"}))

    other = with_tables(copied, replace(ORDER_TABLE, routes=(replace(ORDERS, twin=wrong),)), JOB_TABLE)
    _, by_checksum, by_twins = verdicts(other, db)

    assert by_checksum.differing == 0
    assert [(one.column, one.expected, one.found) for one in by_twins.differences] == [
        ("inferred", "['attempts']", "[]"),
        ("attempts", "2", "0"),
    ]
