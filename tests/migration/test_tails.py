"""Where only the newest rows of a unit changed, the older ones are left alone, and nobody could tell."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from tasktrail.migration import sync, tails
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.session import Session
from tasktrail.migration.workspace import Workspace
from tests.migration.conftest import with_tables
from tests.migration.legacy import JOB_TABLE, ORDER_TABLE, run_sql
from tests.migration.test_backfill import ORDERS_NOW, final, reasons, verdicts

UNIT = """
    INSERT INTO old_orders (id, kind, state, day, currency, note, made, touched)
    SELECT 100 + n, 'order', 'broken', '2024-05-01', 'EUR', 'try ' || n, '2024-05-01 10:00',
        timestamp '2024-05-01 10:00' + least(n, 2) * interval '1 minute' FROM generate_series(1, 3) n
"""
"""Rows 101, 102 and 103, the last of which is the newest by its key."""


@pytest.fixture
def copied(syncing: Workspace, db: Session, engine: Engine) -> Workspace:
    """A migration with a unit of three rows."""
    run_sql(engine, UNIT)
    Backfill(syncing).run(db)
    sync.apply_changes(db, syncing, syncing.reconcilers(db))
    return syncing


def add(minute: str, number: int = 0, day: str = "2024-05-01") -> str:
    """Return SQL for another row of the unit."""
    key = f"{number}" if number else "nextval('old_orders_id_seq') + 1000"
    return (
        "INSERT INTO old_orders (id, kind, state, day, currency, note, made, touched) "
        f"VALUES ({key}, 'order', 'broken', '{day}', 'EUR', 'at {minute}', '2024-05-01 10:00', "
        f"'2024-05-01 {minute}')"
    )


def change(number: int, what: str) -> str:
    return f"UPDATE old_orders SET {what} WHERE id = {number}"


def delete(number: int) -> str:
    return f"DELETE FROM old_orders WHERE id = {number}"


def apply(workspace: Workspace, db: Session) -> int:
    """Carry all changes over; return how many rows were looked at besides those that changed."""
    revisited = 0
    (reconciler,) = (
        one for one in workspace.reconcilers(db) if one.staging.transform.table.name == "old_orders"
    )
    while sync.apply_changes(db, workspace, [reconciler], batches=1):
        revisited += reconciler.revisited
    return revisited


def assert_as_if_taken_whole(workspace: Workspace, db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every row anew, and all rows of each unit: nothing may change by it."""
    assert [verdict.differing for verdict in verdicts(workspace, db)] == [0, 0, 0]
    before = final(db)
    with monkeypatch.context() as patched:
        patched.setattr(tails, "review", lambda *_: None)
        for reconciler in workspace.reconcilers(db):
            staging = reconciler.staging
            source = staging.transform.source
            keys = [row["key"] for row in db.rows(f"SELECT id::text AS key FROM {source}")]
            reconciler.run(db, lambda session, staging=staging, keys=keys: staging.fill(session, keys))  # type: ignore[misc]
    assert final(db) == before


@pytest.mark.parametrize(
    ("changes", "revisited"),
    [
        pytest.param([change(103, "touched = '2024-05-01 11:00'")], 0, id="the newest is updated"),
        pytest.param([change(103, "note = 'again'")], 0, id="the newest is updated, its time stays"),
        pytest.param([add("11:00")], 1, id="a newer one comes"),
        pytest.param([add("11:00"), add("12:00")], 1, id="two newer ones come"),
        pytest.param(
            [add("11:00"), add("12:00"), change(103, "touched = '2024-05-01 11:30'")],
            0,
            id="the newest is updated and lies between two that come",
        ),
        pytest.param([change(103, "state = 'ok', touched = '2024-05-01 11:00'"), add("12:00")], 0, id="both"),
    ],
)
def test_older_rows_are_left_alone(
    copied: Workspace,
    db: Session,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    changes: list[str],
    revisited: int,
) -> None:
    for sql in changes:
        run_sql(engine, sql)

    assert apply(copied, db) == revisited
    assert_as_if_taken_whole(copied, db, monkeypatch)


@pytest.mark.parametrize("number", [101, 103])
def test_a_tail_that_was_broken_is_whole_again(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run_sql(engine, change(number, "touched = '2024-05-01 10:01:30', note = 'late'"))
    apply(copied, db)
    run_sql(engine, add("11:00"))

    assert apply(copied, db) == 1
    assert_as_if_taken_whole(copied, db, monkeypatch)


@pytest.mark.parametrize("batch", [1, 2, 5000])
def test_a_unit_that_came_in_parts_has_a_tail(
    syncing: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Also where its newest row came first, as in chunks of a copy."""
    Backfill(syncing).run(db)
    run_sql(engine, UNIT.replace("least(n, 2)", "(10 - n)"))
    monkeypatch.setattr(sync, "BATCH", batch)
    apply(syncing, db)
    run_sql(engine, add("11:00"))

    assert apply(syncing, db) == 1
    assert_as_if_taken_whole(syncing, db, monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([add("10:01:30")], id="one comes that is not the newest"),
        pytest.param([add("10:02", 50)], id="one comes that is as new with a lesser key"),
        pytest.param([change(103, "touched = '2024-05-01 10:00:30'")], id="the newest becomes the oldest"),
        pytest.param([change(101, "note = 'late'")], id="the oldest is updated"),
        pytest.param([change(101, "touched = '2024-05-01 11:00'")], id="the oldest becomes the newest"),
        pytest.param([change(101, "touched = '2024-05-01 11:00'"), add("12:00")], id="the same and a newer"),
        pytest.param([change(101, "state = 'odd'"), add("12:00")], id="the oldest is refused"),
        pytest.param([change(101, "kind = 'ping'"), add("12:00")], id="the oldest takes no route"),
        pytest.param([change(101, "day = '2024-05-02'"), add("12:00")], id="the oldest goes elsewhere"),
        pytest.param([delete(101)], id="the oldest goes"),
        pytest.param([delete(103)], id="the newest goes"),
        pytest.param([delete(103), add("11:00")], id="the newest goes and a newer comes"),
        pytest.param([delete(103), add("10:01:30", 103)], id="the newest comes again, older"),
        pytest.param([change(103, "state = 'odd'")], id="the newest is refused"),
        pytest.param([change(103, "kind = 'ping'"), add("11:00")], id="the newest takes no route"),
        pytest.param([change(103, "day = '2024-05-02'")], id="the newest goes elsewhere"),
        pytest.param([change(103, "day = '2024-05-02'"), add("11:00")], id="the same, and a newer comes"),
    ],
)
@pytest.mark.parametrize("batch", [1, 5000])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_what_else_happens_is_as_if_the_unit_were_taken_whole(
    copied: Workspace,
    db: Session,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    changes: list[str],
    batch: int,
    is_reversed: bool,
) -> None:
    """With batches of one change, who is pulled in may have changed meanwhile, too."""
    monkeypatch.setattr(sync, "BATCH", batch)
    for sql in reversed(changes) if is_reversed and not changes[0].startswith("DELETE") else changes:
        run_sql(engine, sql)
    apply(copied, db)

    assert_as_if_taken_whole(copied, db, monkeypatch)


def test_a_row_that_goes_elsewhere_may_be_the_newest_there(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in ("09:01", "09:02"):
        run_sql(engine, add(minute, day="2024-05-02"))
    apply(copied, db)
    run_sql(engine, change(103, "day = '2024-05-02'"))

    assert apply(copied, db) == 3  # all that are left here, and the newest of there
    assert_as_if_taken_whole(copied, db, monkeypatch)


def test_a_row_that_is_pulled_in_and_has_gone_elsewhere_may_break_the_tail_of_there(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in ("10:05", "10:06"):
        run_sql(engine, add(minute, day="2024-05-02"))
    apply(copied, db)
    monkeypatch.setattr(sync, "BATCH", 2)
    run_sql(engine, add("11:00"))
    run_sql(engine, add("12:00", day="2024-05-02"))
    run_sql(engine, change(103, "day = '2024-05-02'"))  # is not in the first batch
    apply(copied, db)

    assert_as_if_taken_whole(copied, db, monkeypatch)


def test_the_log_of_a_tail_holds_the_newest_fifty_and_goes_on_counting(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hour in range(11, 16):
        for minute in range(12):
            run_sql(engine, add(f"{hour}:{minute:02}"))
        apply(copied, db)
    (log,) = [row["attempt_log"] for row in db.rows(ORDERS_NOW) if str(row["day"]) == "2024-05-01"]

    assert [entry["number"] for entry in log] == list(range(13, 63))
    assert_as_if_taken_whole(copied, db, monkeypatch)


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_unit_that_the_new_side_worked_on_is_taken_whole(
    copied: Workspace, db: Session, engine: Engine, is_restored: bool
) -> None:
    """Also where a dump was restored in one transaction, so that all rows have the same writer."""
    restore = ";UPDATE tracking.tasktrail_ledger SET chunk = chunk" if is_restored else ""
    worked = "UPDATE tracking.order_tracking SET worker = 'new' WHERE day = '2024-05-01'"
    run_sql(engine, worked + restore)
    run_sql(engine, change(103, "touched = '2024-05-01 11:00'"))

    assert apply(copied, db) == 2
    assert {reasons(db)[key] for key in ("101", "102", "103")} == {"consolidated paired"}


@pytest.mark.parametrize("worker", ["'new'", "NULL"])
def test_a_unit_that_was_written_back_is_taken_whole(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    """As by a rollback that writes a row back and takes it out of the workers' hands, in one transaction."""
    run_sql(
        engine,
        "UPDATE tracking.tasktrail_ledger SET reason = 'written_back' WHERE source_key = '103';"
        f"UPDATE tracking.order_tracking SET worker = {worker}, attempt_log = '[]' WHERE day = '2024-05-01'",
    )
    run_sql(engine, change(103, "touched = '2024-05-01 11:00'"))

    assert apply(copied, db) == 2
    assert_as_if_taken_whole(copied, db, monkeypatch)


@pytest.mark.parametrize(
    "written",
    [
        pytest.param("status = 'CANCELLED', updated_at = '2024-05-01 09:00'", id="a cancelled row"),
        pytest.param("""attempt_log = attempt_log || '{"number": 2}'""", id="a log that goes on"),
        pytest.param(
            """attempt_log = jsonb_set(attempt_log, '{0,error}', '"by hand"')""", id="an entry, by hand"
        ),
    ],
)
@pytest.mark.parametrize(
    "named",
    [
        pytest.param(change(103, "touched = '2024-05-01 10:01:30'"), id="a newest that is not"),
        pytest.param(change(103, "id = id"), id="as it was"),
    ],
)
def test_a_unit_whose_row_somebody_else_wrote_to_is_taken_whole(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, written: str, named: str
) -> None:
    """As an operator does who cancels a row that a legacy worker has begun, maybe under another clock."""
    run_sql(engine, f"UPDATE tracking.order_tracking SET {written} WHERE day = '2024-05-01'")
    run_sql(engine, named)

    assert apply(copied, db) == 2
    assert_as_if_taken_whole(copied, db, monkeypatch)


@pytest.mark.parametrize("log", ["{}", '[{"number": "x"}, {"number": "x"}]'])
def test_a_log_that_is_none_is_not_blamed_on_the_legacy_row(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, log: str
) -> None:
    run_sql(engine, f"UPDATE tracking.order_tracking SET attempt_log = '{log}' WHERE day = '2024-05-01'")
    run_sql(engine, change(103, "touched = '2024-05-01 11:00'"))

    assert apply(copied, db) == 2
    assert_as_if_taken_whole(copied, db, monkeypatch)


def test_all_rows_of_a_unit_follow_it_when_its_key_was_changed_on_the_new_side(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE tracking.order_tracking SET day = '2030-01-01' WHERE day = '2024-05-01'")
    run_sql(engine, add("11:00"))
    apply(copied, db)

    (row,) = db.rows("SELECT id FROM tracking.order_tracking WHERE day = '2024-05-01'")
    ids = "SELECT DISTINCT target_id FROM tracking.tasktrail_ledger WHERE target_key LIKE '%2024-05-01%'"
    assert [one["target_id"] for one in db.rows(ids)] == [row["id"]]


def test_a_unit_that_older_rules_decided_is_taken_whole(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    newer = with_tables(copied, replace(ORDER_TABLE, rule_version=2), JOB_TABLE)
    run_sql(engine, change(103, "touched = '2024-05-01 11:00'"))

    assert apply(newer, db) == 2
    versions = "SELECT count(*) FROM tracking.tasktrail_ledger WHERE rule_version = 2"
    assert db.value(versions) == 3


def test_what_the_ledger_says_already_is_found_by_one_join(copied: Workspace, db: Session) -> None:
    """Looked up row by row, a chunk of seconds takes minutes."""
    reconciler = copied.reconcilers(db)[0]
    reconciler.staging.create(db)
    statement = reconciler._write(reconciler.staging.shared[0], 1, forget=True)

    assert any("Anti Join" in row["QUERY PLAN"] for row in db.rows(f"EXPLAIN {statement}"))


WRITES = (
    lambda dice: add(f"{dice.randrange(10, 20)}:{dice.randrange(60):02}", day=DAYS[dice.randrange(3)]),
    lambda _: add("now").replace("'2024-05-01 now'", "clock_timestamp()"),
    lambda dice: f"UPDATE old_orders SET state = '{dice.choice(('ok', 'broken', 'new', 'odd'))}', "
    f"touched = clock_timestamp() WHERE {NEWEST}",
    lambda dice: f"UPDATE old_orders SET note = 'changed {dice.random()}' WHERE {ANY}",
    lambda dice: f"UPDATE old_orders SET day = '{dice.choice(DAYS)}' WHERE {ANY}",
    lambda _: f"DELETE FROM old_orders WHERE {ANY}",
    lambda dice: "UPDATE tracking.order_tracking SET attempt_log = jsonb_set(attempt_log, '{0,error}', '1'), "
    f"updated_at = '2024-05-01 09:00' WHERE day = '{(day := dice.choice(DAYS))}' AND attempt_log <> '[]';"
    f"UPDATE old_orders SET id = id WHERE id = (SELECT max(id) FROM old_orders WHERE day = '{day}')",
)  # fmt: skip
"""What old workers do, what they never would, and a row of the new side that is mended."""

DAYS = ("2024-05-01", "2024-05-02", "2024-05-03")
NEWEST = "id = (SELECT id FROM old_orders WHERE kind = 'order' ORDER BY id DESC LIMIT 1)"
ANY = "id = (SELECT id FROM old_orders WHERE kind = 'order' AND id > 14 ORDER BY random() LIMIT 1)"


@pytest.mark.parametrize("seed", range(4))
def test_any_history_in_any_batches_ends_as_if_units_were_taken_whole(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    reconcilers = copied.reconcilers(db)
    run_sql(engine, f"SELECT setseed({seed / 10})")
    for _ in range(40):
        for _ in range(dice.randrange(1, 8)):
            run_sql(engine, dice.choices(WRITES, (4, 12, 12, 2, 2, 2, 1))[0](dice))
        monkeypatch.setattr(sync, "BATCH", dice.choice((1, 3, 5000)))
        sync.apply_changes(db, copied, reconcilers, batches=dice.choice((1, 2, 100)))
    monkeypatch.setattr(sync, "BATCH", 5000)
    sync.apply_changes(db, copied, reconcilers)

    assert_as_if_taken_whole(copied, db, monkeypatch)
