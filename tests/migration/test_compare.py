"""A comparison: what differs between the two sides, and what is no difference."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tasktrail.migration import compare as comparing
from tasktrail.migration import sync
from tasktrail.migration.compare import Comparison, compare
from tasktrail.migration.difference import Difference
from tasktrail.migration.session import Session
from tasktrail.migration.verify import Verdict
from tasktrail.migration.workspace import Workspace
from tests.migration.legacy import JOB_TABLE, ORDER_TABLE, run_sql
from tests.migration.parallel import JOBS_PAIRED, ORDERS_PAIRED, PAIRED, named, start_parallel

DAY = "2024-06-01"
PAIR = f'orders ["{DAY}", "EUR"]'


@pytest.fixture
def running(workspace: Workspace, db: Session) -> Workspace:
    """The migration in its parallel run."""
    return start_parallel(workspace, db)


def look(workspace: Workspace, db: Session) -> Comparison:
    """Apply what is in the queue, and compare."""
    sync.apply_changes(db, workspace, workspace.reconcilers(db, error_budget=None))
    return compare(db, workspace, workspace.stagings(db))


def differences(comparison: Comparison) -> list[Difference]:
    return [one for verdict in comparison.verdicts for one in verdict.differences]


def pairs(comparison: Comparison) -> Verdict:
    (verdict,) = (one for one in comparison.verdicts if one.way == "pair")
    return verdict


def new_order(engine: Engine, **values: str) -> None:
    """Have the new side do the work of an order."""
    row = {
        "day": f"'{DAY}'",
        "currency": "'EUR'",
        "status": "'COMPLETED'",
        "celery_task_id": "'ours'",
        "tags": "'{a,b}'",
        "completed_at": "'2024-06-01 10:00Z'",
        **values,
    }
    run_sql(
        engine,
        f"INSERT INTO tracking.order_tracking ({', '.join(row)}) VALUES ({', '.join(row.values())})",
    )


def old_order(engine: Engine, **values: str) -> None:
    """Have an old worker do the work of an order."""
    row = {
        "kind": "'order'",
        "state": "'ok'",
        "day": f"'{DAY}'",
        "currency": "'EUR'",
        "tags": "'a,b'",
        "made": "'2024-06-01 09:00'",
        "touched": "'2024-06-01 10:00'",
        **values,
    }
    run_sql(engine, f"INSERT INTO old_orders ({', '.join(row)}) VALUES ({', '.join(row.values())})")


def new_job(engine: Engine, payload: str, status: str = "COMPLETED") -> None:
    """Have the new side do a job."""
    run_sql(
        engine,
        "INSERT INTO tracking.job_tracking (payload, status, celery_task_id) "
        f"VALUES ('{payload}', '{status}', 'ours')",
    )


def test_two_sides_that_agree_have_no_difference(running: Workspace, db: Session, engine: Engine) -> None:
    new_order(engine)
    old_order(engine)
    new_job(engine, "job 4")
    new_job(engine, "a job of the new side only")
    found = look(running, db)

    assert differences(found) == []
    assert (found.pairs, found.only_new, found.pending) == (2, 1, 0)
    assert found.compared == 3 + 1 + 9 + 2 + 2  # mirrored rows, rows of the new side, and the pairs


DRIFT = {
    "missing on the new side": (
        "DELETE FROM tracking.order_tracking WHERE day = '2024-03-02'",
        {
            ("checksum", 'orders ["2024-03-02", "USD"]', "missing", ""),
            ("account", "4", "points at a row that is not there", ""),
        },
    ),
    "extra on the new side": (
        "INSERT INTO tracking.order_tracking (day, currency, status) VALUES ('2024-06-02', 'EUR', 'FAILED')",
        {("checksum", 'orders ["2024-06-02", "EUR"]', "extra", "")},
    ),
    "another status on the new side": (
        "UPDATE tracking.order_tracking SET status = 'FAILED' WHERE day = '2024-03-02'",
        {("checksum", 'orders ["2024-03-02", "USD"]', "different", "status")},
    ),
    "missing on the legacy side": (
        "DELETE FROM old_orders WHERE id = 4",
        {("checksum", 'orders ["2024-03-02", "USD"]', "extra", ""), ("account", "none", "ghost", "")},
    ),
    "extra on the legacy side": (
        (
            "INSERT INTO old_orders (kind, state, day, currency, made) "
            "VALUES ('order', 'ok', '2024-06-02', 'EUR', now())"
        ),
        {
            ("checksum", 'orders ["2024-06-02", "EUR"]', "missing", ""),
            ("account", "order", "unaccounted", ""),
        },
    ),
    "another status on the legacy side": (
        "UPDATE old_orders SET state = 'dropped' WHERE id = 4",
        {
            ("checksum", 'orders ["2024-03-02", "USD"]', "different", "status"),
            ("checksum", 'orders ["2024-03-02", "USD"]', "different", "completed_at"),
            ("account", "4", "stale", ""),
        },
    ),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_found_in_one_pass(running: Workspace, db: Session, engine: Engine, name: str) -> None:
    damage, expected = DRIFT[name]
    assert differences(look(running, db)) == []
    # The trigger is off, as for whoever writes past it.
    run_sql(engine, f"ALTER TABLE old_orders DISABLE TRIGGER ALL; {damage}")

    assert set(map(named, differences(look(running, db)))) == expected


def test_a_pair_that_differs_says_in_what(running: Workspace, db: Session, engine: Engine) -> None:
    new_order(engine)
    old_order(engine, state="'broken'", tags="'b,a'")
    found = look(running, db)

    assert differences(found) == [
        Difference("pair", "old_orders", PAIR, "different", "status", "FAILED", "COMPLETED"),
        Difference("pair", "old_orders", PAIR, "different", "tags", "{b,a}", "{a,b}"),
        Difference("pair", "old_orders", PAIR, "different", "attempts", "1", "0"),
    ]
    assert (pairs(found).compared, pairs(found).differing) == (1, 1)


@pytest.mark.parametrize("status", ["PENDING", "PROCESSING"])
def test_a_pair_in_which_the_new_side_has_not_finished_is_pending(
    running: Workspace, db: Session, engine: Engine, status: str
) -> None:
    new_order(engine, status=f"'{status}'", completed_at="NULL")
    old_order(engine)
    found = look(running, db)

    assert differences(found) == []
    assert (pairs(found).compared, pairs(found).pending) == (0, 1)


@pytest.mark.parametrize("state", ["new", "busy"])
def test_a_pair_in_which_the_legacy_side_has_not_finished_is_pending(
    running: Workspace, db: Session, engine: Engine, state: str
) -> None:
    new_order(engine)
    old_order(engine, state=f"'{state}'")
    found = look(running, db)

    assert differences(found) == []
    assert (pairs(found).compared, pairs(found).pending) == (0, 1)


def test_a_pair_whose_legacy_change_is_in_the_queue_is_pending(
    running: Workspace, db: Session, engine: Engine
) -> None:
    new_order(engine)
    old_order(engine, state="'broken'")
    found = compare(db, running, running.stagings(db))

    assert differences(found) == []
    assert (pairs(found).compared, pairs(found).pending) == (0, 1)


@pytest.mark.parametrize(
    ("completed_at", "differs"),
    [
        ("'2024-06-01 11:00Z'", False),
        ("'2024-06-01 11:00:00.000001Z'", True),
        ("'2024-06-01 09:00Z'", False),
        ("'2024-06-01 08:59:59.999999Z'", True),
        ("NULL", True),
        ("'infinity'", True),
    ],
)
def test_times_may_differ_up_to_their_tolerance(
    running: Workspace, db: Session, engine: Engine, completed_at: str, differs: bool
) -> None:
    new_order(engine, completed_at=completed_at)
    old_order(engine)

    assert [one.column for one in differences(look(running, db))] == ["completed_at"] * differs


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ("NULL", "NULL", []),
        ("NULL", "'a,b'", [("{a,b}", None)]),
        ("'{a,b}'", "NULL", [(None, "{a,b}")]),
    ],
)
def test_nothing_against_a_value_is_a_difference_and_against_nothing_is_none(
    running: Workspace, db: Session, engine: Engine, new: str, old: str, expected: list[object]
) -> None:
    new_order(engine, tags=new)
    old_order(engine, tags=old)

    assert [(one.expected, one.found) for one in differences(look(running, db))] == expected


def test_columns_that_are_not_compared_may_differ(running: Workspace, db: Session, engine: Engine) -> None:
    new_order(engine, details="'{\"n\": 1}'", error_message="'of the new side'")
    old_order(engine)

    assert differences(look(running, db)) == []


def test_the_newest_of_several_legacy_rows_counts(running: Workspace, db: Session, engine: Engine) -> None:
    old_order(engine, state="'broken'", touched="'2024-06-01 09:30'")
    new_order_after = "UPDATE tracking.order_tracking SET celery_task_id = 'ours' WHERE day = '2024-06-01'"
    sync.apply_changes(db, running, running.reconcilers(db))
    run_sql(engine, new_order_after)
    old_order(engine)
    found = look(running, db)

    assert [(one.column, one.expected, one.found) for one in differences(found)] == [
        ("status", "COMPLETED", "FAILED"),
        ("attempts", "0", "1"),
    ]


def test_a_mirrored_row_that_the_new_side_ran_again_is_a_pair_at_once(
    running: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine,
        "UPDATE tracking.order_tracking SET status = 'FAILED', celery_task_id = 'ours' "
        "WHERE day = '2024-03-01'",
    )
    found = look(running, db)

    assert [named(one) for one in differences(found)] == [
        ("pair", 'orders ["2024-03-01", "EUR"]', "different", "status")
    ]
    assert found.pairs == 1


def test_jobs_that_keep_their_ids_are_paired_by_what_they_are_about(
    running: Workspace, db: Session, engine: Engine
) -> None:
    new_job(engine, "job 4")  # ok in the legacy table
    new_job(engine, "job 2")  # broken there
    new_job(engine, "job 5")  # not begun there
    found = look(running, db)

    assert differences(found) == [
        Difference("pair", "old_jobs", "jobs job 2", "different", "status", "FAILED", "COMPLETED")
    ]
    assert (pairs(found).compared, pairs(found).pending) == (2, 1)


def test_of_several_jobs_about_the_same_the_newest_of_each_side_count(
    running: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine,
        "INSERT INTO old_jobs (payload, state, made) VALUES ('again', 'broken', '2024-05-01'), "
        "('again', 'ok', '2024-05-02')",
    )
    new_job(engine, "again", "FAILED")
    new_job(engine, "again")
    found = look(running, db)

    assert differences(found) == []
    assert found.pairs == 1

    new_job(engine, "again", "FAILED")
    assert [named(one) for one in differences(look(running, db))] == [
        ("pair", "jobs again", "different", "status")
    ]


def test_a_row_of_the_new_side_that_went_although_a_legacy_row_stands_for_it_is_missing(
    running: Workspace, db: Session, engine: Engine
) -> None:
    new_order(engine)
    old_order(engine)
    assert differences(look(running, db)) == []
    run_sql(engine, f"DELETE FROM tracking.order_tracking WHERE day = '{DAY}'")

    assert [named(one) for one in differences(look(running, db))] == [("pair", PAIR, "missing", "")]


def test_many_pairs_that_differ_are_counted_and_the_first_are_named(
    running: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "MOST_SHOWN", 3)
    monkeypatch.setattr("tasktrail.migration.verify.MOST_SHOWN", 3)
    run_sql(
        engine,
        "INSERT INTO tracking.order_tracking (day, currency, status, celery_task_id) "
        "SELECT date '2025-01-01' + n, 'EUR', 'FAILED', 'ours' FROM generate_series(1, 10) n; "
        "INSERT INTO old_orders (kind, state, day, currency, made) "
        "SELECT 'order', 'dropped', (date '2025-01-01' + n)::text, 'EUR', '2025-01-01' "
        "FROM generate_series(1, 10) n",
    )
    verdict = pairs(look(running, db))

    assert (verdict.compared, verdict.differing) == (10, 10)
    assert {one.key for one in verdict.differences} == {f'orders ["2025-01-0{n}", "EUR"]' for n in (2, 3, 4)}


def test_a_route_without_columns_to_compare_has_pairs_that_agree(
    workspace: Workspace, db: Session, engine: Engine
) -> None:
    plan = replace(
        PAIRED,
        tables=(
            replace(ORDER_TABLE, routes=(replace(ORDERS_PAIRED, compared={}),)),
            replace(JOB_TABLE, routes=(JOBS_PAIRED,)),
        ),
    )
    running = start_parallel(workspace, db, plan)
    new_order(engine)
    old_order(engine, state="'broken'")
    found = look(running, db)

    assert differences(found) == []
    assert found.pairs == 1


def test_a_tolerance_is_for_times_of_a_day_and_more(
    workspace: Workspace, db: Session, engine: Engine
) -> None:
    orders = replace(ORDERS_PAIRED, compared={"completed_at": timedelta(days=1, microseconds=1)})
    plan = replace(PAIRED, tables=(replace(ORDER_TABLE, routes=(orders,)), PAIRED.tables[1]))
    running = start_parallel(workspace, db, plan)
    new_order(engine, completed_at="'2024-06-02 10:00:00.000001Z'")
    old_order(engine)
    assert differences(look(running, db)) == []

    run_sql(
        engine,
        "UPDATE tracking.order_tracking SET completed_at = completed_at + interval '1 microsecond' "
        "WHERE celery_task_id = 'ours'",
    )
    assert [one.column for one in differences(look(running, db))] == ["completed_at"]
