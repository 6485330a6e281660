"""Live sync: what old writers do reaches the new tables, and costs them nothing but a note."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from tasktrail.errors import MigrationError
from tasktrail.migration import account, carrier, ddl, sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.copier import Copier
from tasktrail.migration.ddl import ensure_unique_index, with_short_locks
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.throttle import Throttle
from tasktrail.migration.triggers import Noted
from tasktrail.migration.workspace import Workspace
from tests.migration.legacy import run_sql
from tests.migration.test_backfill import ORDERS_NOW, final, reasons, verdicts
from tests.waiting import until


@pytest.fixture
def copied(syncing: Workspace, db: Session) -> Workspace:
    Backfill(syncing).run(db)
    return syncing


def apply(workspace: Workspace, db: Session) -> int:
    return sync.apply_changes(db, workspace, workspace.reconcilers(db))


def order(db: Session, day: str) -> dict[str, Any] | None:
    return next((row for row in db.rows(ORDERS_NOW) if row["day"] == day), None)


def test_inserts_updates_and_deletes_arrive(copied: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "UPDATE old_orders SET state = 'ok', touched = '2024-03-02 11:00' WHERE id = 4")
    run_sql(
        engine,
        "INSERT INTO old_orders (kind, state, day, currency, made) VALUES ('order', 'new', "
        "'2024-04-01', 'EUR', now())",
    )
    run_sql(engine, "DELETE FROM old_orders WHERE id = 5")

    assert apply(copied, db) == 3
    assert order(db, "2024-03-02")["status"] == "COMPLETED"  # type: ignore[index]
    assert order(db, "2024-04-01")["status"] == "PENDING"  # type: ignore[index]
    assert order(db, "2024-03-03") is None
    assert apply(copied, db) == 0
    assert [verdict.differing for verdict in verdicts(copied, db)] == [0, 0, 0]


def test_a_deleted_row_leaves_a_tombstone_and_its_last_state(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "DELETE FROM old_orders WHERE id = 3")
    apply(copied, db)
    (tombstone,) = db.rows("SELECT * FROM tracking.tasktrail_ledger WHERE deleted_at IS NOT NULL")
    (raw,) = db.rows(
        "SELECT raw FROM tracking.tasktrail_raw WHERE table_name = 'old_orders' AND source_key = '3'"
    )

    assert (tombstone["source_key"], tombstone["disposition"]) == ("3", "migrated")
    assert '"state":"dropped"' in raw["raw"]
    assert reasons(db)["1"] == "migrated"  # the next of its group takes its place
    assert order(db, "2024-03-01")["status"] == "COMPLETED"  # type: ignore[index]


def test_a_row_that_came_and_went_unseen_leaves_a_tombstone_too(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "INSERT INTO old_jobs (id, payload, state, made) VALUES (99, 'brief', 'ok', now())")
    run_sql(engine, "DELETE FROM old_jobs WHERE id = 99")
    apply(copied, db)
    (row,) = db.rows("SELECT * FROM tracking.tasktrail_ledger WHERE source_key = '99'")

    assert (row["disposition"], row["reason"]) == ("archived", "deleted_before_copy")
    assert row["deleted_at"] is not None
    assert db.value("SELECT raw FROM tracking.tasktrail_raw WHERE source_key = '99'").startswith('{"id":99')


class StopsAfter(threading.Event):
    """Is set when it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_applying_ends_after_the_transaction_it_is_at_when_it_is_told_to_or_has_done_enough(
    copied: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "BATCH", 1)
    run_sql(engine, "UPDATE old_orders SET note = 'late'")
    reconcilers = copied.reconcilers(db)

    assert sync.apply_changes(db, copied, reconcilers, StopsAfter(3)) == 3
    assert sync.apply_changes(db, copied, reconcilers, batches=2) == 2
    assert sync.lag(db, copied).entries == 9


def test_who_meets_another_writer_of_the_same_row_does_it_again(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    (reconciler, _) = copied.reconcilers(db)
    run_sql(engine, "UPDATE old_orders SET state = 'ok', touched = '2024-03-02 11:00' WHERE id = 4")
    snapshots = 0

    def fill(session: Session) -> int:
        nonlocal snapshots
        snapshots += 1
        if snapshots == 1:
            run_sql(engine, "UPDATE tracking.order_tracking SET attempts = 7 WHERE day = '2024-03-02'")
        return reconciler.staging.fill(session, ["4"])

    assert reconciler.run(db, fill) == 1
    assert snapshots == 2
    assert order(db, "2024-03-02")["status"] == "COMPLETED"  # type: ignore[index]


def test_a_changed_key_is_a_row_that_went_and_one_that_came(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_jobs SET id = id + 1000 WHERE id = 4")
    apply(copied, db)

    assert db.value(
        "SELECT array_agg(id ORDER BY id) FROM tracking.job_tracking WHERE payload = 'job 4'"
    ) == [1004]
    assert [verdict.differing for verdict in verdicts(copied, db)] == [0, 0, 0]


def test_rows_that_take_each_others_keys_in_one_statement_arrive_under_the_new_ones(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "DELETE FROM old_jobs WHERE id = 1; UPDATE old_jobs SET id = id - 1")
    apply(copied, db)

    assert db.value("SELECT count(*) FROM tracking.job_tracking WHERE payload <> 'job ' || id + 1") == 0
    assert [verdict.differing for verdict in verdicts(copied, db)] == [0, 0, 0]


def test_a_changed_unit_of_work_moves_the_row_and_leaves_the_others_of_its_group(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_orders SET day = '2024-03-09' WHERE id = 3")
    apply(copied, db)

    assert order(db, "2024-03-09")["status"] == "CANCELLED"  # type: ignore[index]
    assert order(db, "2024-03-01")["status"] == "COMPLETED"  # type: ignore[index]
    assert [verdict.differing for verdict in verdicts(copied, db)] == [0, 0, 0]


def test_a_row_that_is_no_longer_migrated_takes_its_mirror_away(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine,
        "UPDATE old_orders SET state = '?' WHERE id = 4; UPDATE old_orders SET kind = 'ping' WHERE id = 5",
    )
    run_sql(engine, "UPDATE old_jobs SET state = '?' WHERE id = 4")
    apply(copied, db)

    assert [order(db, day) for day in ("2024-03-02", "2024-03-03")] == [None, None]
    assert db.value("SELECT count(*) FROM tracking.job_tracking WHERE id = 4") == 0
    assert [verdict.differing for verdict in verdicts(copied, db)] == [0, 0, 0]


def test_truncate_loses_nothing(copied: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "TRUNCATE old_orders")
    assert account.take(db, copied, copied.stagings(db)).is_balanced
    apply(copied, db)

    assert db.rows(ORDERS_NOW) == []
    assert db.value("SELECT count(*) FROM tracking.tasktrail_raw WHERE table_name = 'old_orders'") == 14


def test_a_row_that_is_committed_after_the_cursor_passed_it_is_not_missed(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    with engine.connect() as late:
        late.exec_driver_sql(
            "INSERT INTO old_orders (id, kind, state, day, currency, made) "
            "VALUES (-1, 'order', 'ok', '2024-05-01', 'EUR', now())"
        )
        Backfill(syncing).run(db)
        late.commit()

    assert account.take(db, syncing, syncing.stagings(db)).is_balanced
    apply(syncing, db)
    assert reasons(db)["-1"] == "migrated"


def test_what_changed_while_the_triggers_were_off_is_found_by_the_anti_join(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine,
        "ALTER TABLE old_orders DISABLE TRIGGER ALL; DELETE FROM old_orders WHERE id = 4; "
        "UPDATE old_orders SET note = 'unseen' WHERE id = 5; "
        "INSERT INTO old_orders (kind, state, day, currency, made) VALUES ('order', 'ok', "
        "'2024-05-02', 'EUR', now())",
    )
    (staging, _) = copied.stagings(db)
    assert sync.problems(db, staging) == [
        f"the trigger tasktrail_{event}_old_orders of public.old_orders is disabled"
        for event in ("insert", "update", "rekey", "delete", "truncate")
    ]
    before = account.take(db, copied, copied.stagings(db))
    assert before.total("unaccounted") == before.total("ghost") == 1

    assert Backfill(copied).catch_up(db, copied.reconcilers(db)) == 3
    assert account.take(db, copied, copied.stagings(db)).is_balanced
    assert order(db, "2024-05-02") is not None
    assert order(db, "2024-03-03")["error_message"] == "unseen"  # type: ignore[index]


def test_triggers_wait_for_nobody_for_long(
    workspace: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl, "ATTEMPTS", 2)
    monkeypatch.setattr(ddl, "LOCK_TIMEOUT", 20)
    workspace.journal.begin(db)
    (staging, _) = workspace.stagings(db)
    with engine.connect() as writer:
        writer.exec_driver_sql("UPDATE old_orders SET note = 'open' WHERE id = 1")
        with pytest.raises(
            MigrationError, match=r"could not put triggers on public\.old_orders: the lock was not had"
        ):
            sync.install(db, workspace, staging)

        assert len(sync.problems(db, staging)) == 5


def test_a_lock_that_comes_free_is_had_at_the_next_attempt(db: Session) -> None:
    tries: list[float] = []

    def work(session: Session) -> None:
        if len(tries) < 2:
            raise psycopg.errors.LockNotAvailable
        session.run("SELECT 1")

    with_short_locks(db, "do it", work, tries.append)

    assert len(tries) == 2


def test_an_invalid_index_is_built_again(workspace: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "CREATE TABLE twice (a int); INSERT INTO twice VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        ensure_unique_index(db, "public.twice", ["a"], "uq_twice")
    run_sql(engine, "DELETE FROM twice")
    assert db.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'uq_twice'::regclass") is False

    assert ensure_unique_index(db, "public.twice", ["a"], "uq_twice")
    assert db.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'uq_twice'::regclass") is True
    assert not ensure_unique_index(db, "public.twice", ["a"], "uq_twice")


def test_a_writer_never_fails_because_of_us(copied: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "ALTER TABLE tracking.tasktrail_changes RENAME TO gone")
    run_sql(engine, "UPDATE old_orders SET note = 'still works' WHERE id = 1")

    assert db.value("SELECT note FROM old_orders WHERE id = 1") == "still works"


def test_a_writer_needs_no_rights_on_our_tables(copied: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "CREATE ROLE old_writer; GRANT SELECT, UPDATE ON old_orders TO old_writer")
    try:
        run_sql(
            engine, "SET LOCAL ROLE old_writer; UPDATE old_orders SET note = 'by another role' WHERE id = 1"
        )
    finally:
        run_sql(engine, "DROP OWNED BY old_writer; DROP ROLE old_writer")

    assert sync.lag(db, copied).entries == 1


def test_keys_are_noted_alike_whatever_the_settings_of_the_writer(db: Session, engine: Engine) -> None:
    run_sql(engine, "CREATE TABLE old_hours (hour timestamptz PRIMARY KEY, width interval, share float8)")
    noted = Noted("legacy", "old_hours", "old_hours", "public.old_hours", ("hour",), "tracking")
    noted.install(db)
    run_sql(
        engine,
        "SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'; SET intervalstyle = 'iso_8601'; "
        "SET extra_float_digits = -5; "
        "INSERT INTO old_hours VALUES ('2024-02-01 09:00+00', '1 day', 1.0 / 3); DELETE FROM old_hours",
    )

    changes = "SELECT source_key, old_row FROM tracking.tasktrail_changes ORDER BY id"
    old_row = '{"hour":"2024-02-01T09:00:00+00:00","width":"1 day","share":0.3333333333333333}'
    assert [tuple(row.values()) for row in db.rows(changes)] == [
        ("2024-02-01 09:00:00+00", None),
        ("2024-02-01 09:00:00+00", old_row),
    ]


def test_the_lag_is_a_number_and_an_age(copied: Workspace, db: Session, engine: Engine) -> None:
    assert sync.lag(db, copied) == sync.Lag(0, 0.0)
    run_sql(engine, "UPDATE old_orders SET note = 'late'")
    lag = sync.lag(db, copied)

    assert lag.entries == 14
    assert 0 < lag.seconds < 60


def test_what_the_new_side_did_itself_is_paired_and_not_overwritten(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine,
        "INSERT INTO tracking.order_tracking (day, currency, status, celery_task_id) "
        "VALUES ('2024-06-01', 'EUR', 'COMPLETED', 'ours'); "
        "INSERT INTO old_orders (kind, state, day, currency, made) VALUES ('order', 'broken', "
        "'2024-06-01', 'EUR', now())",
    )
    apply(copied, db)

    assert order(db, "2024-06-01")["status"] == "COMPLETED"  # type: ignore[index]
    assert reasons(db)["15"] == "consolidated paired"
    assert [verdict.differing for verdict in verdicts(copied, db)] == [0, 0, 0]


def test_a_new_row_with_an_id_that_is_kept_for_a_legacy_one_is_not_overwritten(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine, "INSERT INTO tracking.job_tracking (id, payload, celery_task_id) VALUES (50, 'new', 'ours')"
    )
    run_sql(engine, "INSERT INTO old_jobs (id, payload, state, made) VALUES (50, 'old', 'ok', now())")
    apply(copied, db)

    assert db.value("SELECT payload FROM tracking.job_tracking WHERE id = 50") == "new"
    assert reasons(db, "old_jobs")["50"] == "quarantined id_taken"


def test_everything_can_be_taken_off_again(copied: Workspace, db: Session, engine: Engine) -> None:
    for staging in copied.stagings(db):
        sync.uninstall(db, staging)
    run_sql(engine, "UPDATE old_orders SET note = 'unseen'")

    assert sync.lag(db, copied).entries == 0
    assert db.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'tasktrail_note_%'") == 0


def test_a_row_that_no_rule_expects_keeps_no_other_from_arriving_and_comes_back_when_corrected(
    copied: Workspace, db: Session, engine: Engine
) -> None:
    reconcilers = copied.reconcilers(db, error_budget=None)
    run_sql(engine, "UPDATE old_orders SET tags = 'far too long' WHERE id = 4")
    run_sql(engine, "UPDATE old_orders SET note = 'fine' WHERE id = 5")
    assert sync.apply_changes(db, copied, reconcilers) == 2
    assert reasons(db)["4"] == "quarantined error_22001"
    assert order(db, "2024-03-03")["error_message"] == "fine"  # type: ignore[index]
    assert order(db, "2024-03-02") is None

    run_sql(engine, "UPDATE old_orders SET tags = 'short' WHERE id = 4")
    assert sync.apply_changes(db, copied, reconcilers) == 1
    assert reasons(db)["4"] == "migrated"


WRITES = (
    (
        "INSERT INTO old_orders (kind, state, day, currency, made, touched) VALUES ('order', "
        "%(state)s, %(day)s, 'EUR', now(), now())"
    ),
    "UPDATE old_orders SET state = %(state)s, touched = clock_timestamp() WHERE id = %(id)s",
    "UPDATE old_orders SET day = %(day)s WHERE id = %(id)s",
    "UPDATE old_orders SET kind = CASE kind WHEN 'order' THEN 'ping' ELSE 'order' END WHERE id = %(id)s",
    "DELETE FROM old_orders WHERE id = %(id)s",
    "UPDATE old_jobs SET state = %(state)s WHERE id = %(id)s",
)


def write(url: str, stop: threading.Event, seed: int, done: list[int], errors: list[BaseException]) -> None:
    dice = random.Random(seed)
    count = 0
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(0.008):
                values = {
                    "state": dice.choice(["new", "busy", "ok", "broken", "odd"]),
                    "day": dice.choice(
                        [f"2024-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}", "2024-02-30", None]
                    ),
                    "id": dice.randrange(1, 1500),
                }
                connection.execute(dice.choice(WRITES).encode(), values)
                count += 1
    except BaseException as error:  # the test fails with it
        errors.append(error)
    done.append(count)


def test_the_equation_holds_at_every_moment_while_writers_write_and_rows_are_copied(
    workspace: Workspace, db: Session, engine: Engine
) -> None:
    from tests.migration.conftest import start_syncing

    run_sql(
        engine,
        "INSERT INTO old_orders (kind, state, day, currency, made, touched) SELECT 'order', 'ok', "
        "(date '2024-01-01' + n % 1000)::text, 'EUR', now(), now() FROM generate_series(1, 1500) n",
    )
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    stop, follower_stop, done, errors = threading.Event(), threading.Event(), [], []
    writers = [threading.Thread(target=write, args=(url, stop, seed, done, errors)) for seed in range(4)]
    unbalanced: list[account.Account] = []
    looks = 0

    def observe() -> None:
        nonlocal looks
        with workspace.session("observer") as observer:
            stagings = workspace.stagings(observer)
            while not stop.is_set():
                seen = account.take(observer, workspace, stagings)
                looks += 1
                if not seen.is_balanced:
                    unbalanced.append(seen)

    def follow() -> None:
        with workspace.session("follower") as follower:
            carrier.follow(follower, workspace, follower_stop, interval=0.01, share=0.5)

    observer, follower = threading.Thread(target=observe), threading.Thread(target=follow)
    for thread in writers:
        thread.start()
    start_syncing(workspace, db)
    observer.start()
    follower.start()
    Backfill(workspace, chunk_size=50).run(db)
    until(lambda: looks > 10, seconds=60)
    stop.set()
    for thread in (*writers, observer):
        thread.join(30)
    until(lambda: not sync.lag(db, workspace).entries, seconds=30)
    follower_stop.set()
    follower.join(30)

    assert errors == []
    assert unbalanced == []
    assert sum(done) > 500
    assert [verdict.differing for verdict in verdicts(workspace, db)] == [0, 0, 0]
    assert [verdict.pending for verdict in verdicts(workspace, db)] == [0, 0, 0]
    before = final(db)
    db.run(
        "UPDATE tracking.tasktrail_migration_tables SET cursor = NULL, finished_at = NULL, bound = '100000'"
    )
    Backfill(workspace).run(db)
    assert final(db) == before


# Before everything is copied

NEW_ORDER = (
    "INSERT INTO old_orders (kind, state, day, currency, made) VALUES ('order', 'new', '{}', 'EUR', now())"
)
BOUNDS = "SELECT bound, cursor FROM tracking.tasktrail_migration_tables WHERE table_name = 'old_orders'"


def ledger(db: Session) -> dict[str, int]:
    """Return in which chunk each order was noted; 0 is live sync."""
    rows = db.rows("SELECT source_key, chunk FROM tracking.tasktrail_ledger WHERE table_name = 'old_orders'")
    return {row["source_key"]: row["chunk"] for row in rows}


def is_accounted(workspace: Workspace, db: Session, pending: int) -> bool:
    found = account.take(db, workspace, workspace.stagings(db))
    return found.is_balanced and found.total("pending") == pending


def test_until_the_copy_begins_changes_are_left_to_it_but_for_what_was_deleted(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_orders SET state = 'ok' WHERE id = 4")
    run_sql(engine, NEW_ORDER.format("2024-04-01"))
    run_sql(engine, "DELETE FROM old_orders WHERE id = 5")

    assert apply(syncing, db) == 3
    assert ledger(db) == {"5": 0}
    assert db.rows(BOUNDS) == [{"bound": "15", "cursor": None}]
    rows = db.value("SELECT (SELECT count(*) FROM old_orders) + (SELECT count(*) FROM old_jobs)")
    assert is_accounted(syncing, db, rows)

    Backfill(syncing).run(db)
    assert ledger(db) == {"5": 0, **{str(number): 1 for number in range(1, 16) if number != 5}}
    assert [verdict.differing for verdict in verdicts(syncing, db)] == [0, 0, 0]


def test_while_it_is_copied_a_table_is_followed_as_far_as_the_copy_has_come(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    reconciler, _ = syncing.reconcilers(db)
    stop = StopsAfter(1)
    Copier(syncing, reconciler, chunk_size=4, throttle=Throttle(), report=lambda _: None).run(db, stop)
    assert db.rows(BOUNDS) == [{"bound": "14", "cursor": "4"}]
    run_sql(engine, "UPDATE old_orders SET state = 'ok' WHERE id IN (4, 9)")
    run_sql(engine, NEW_ORDER.format("2024-04-01"))
    run_sql(engine, "DELETE FROM old_orders WHERE id IN (1, 10)")

    assert sync.apply_changes(db, syncing, [reconciler]) == 5
    # The third is noted anew, since its log lost the first.
    assert ledger(db) == {"1": 0, "2": 1, "3": 0, "4": 0, "10": 0, "15": 0}
    assert order(db, "2024-03-02")["status"] == "COMPLETED"  # type: ignore[index]
    assert account.take(db, syncing, syncing.stagings(db)).is_balanced

    Backfill(syncing, chunk_size=4).run(db)
    assert [ledger(db)[key] for key in ("4", "9", "15")] == [0, 3, 0]
    assert [verdict.differing for verdict in verdicts(syncing, db)] == [0, 0, 0]


def test_a_row_that_the_copy_has_not_reached_is_followed_once_it_was_carried_over(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    """A row that was deleted and written again is noted; what becomes of it then must not be missed."""
    reconciler, _ = syncing.reconcilers(db)
    run_sql(engine, "CREATE TABLE kept AS SELECT * FROM old_orders WHERE id = 9")
    run_sql(engine, "DELETE FROM old_orders WHERE id = 9")
    run_sql(engine, "INSERT INTO old_orders OVERRIDING SYSTEM VALUE SELECT * FROM kept")
    sync.apply_changes(db, syncing, [reconciler])
    before = db.value("SELECT source_hash FROM tracking.tasktrail_ledger WHERE source_key = '9'")
    run_sql(engine, "UPDATE old_orders SET note = 'again' WHERE id = 9")
    sync.apply_changes(db, syncing, [reconciler])

    assert db.value("SELECT source_hash FROM tracking.tasktrail_ledger WHERE source_key = '9'") != before


def test_a_copy_that_begins_knows_how_far_changes_were_left_to_it(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    """Who copies looked where to begin before who follows moved the bound."""
    reconciler, _ = syncing.reconcilers(db)

    class Slow(Copier):
        def _copy_chunk(self, session: Session, position: dict[str, Any], size: int) -> tuple[int, float]:
            if not position["chunk"]:
                run_sql(engine, NEW_ORDER.format("2024-04-01"))
                sync.apply_changes(session, syncing, [reconciler])
            return super()._copy_chunk(session, position, size)

    Slow(syncing, reconciler, chunk_size=20, throttle=Throttle(), report=lambda _: None).run(db)

    assert ledger(db)["15"] == 1


def test_a_copy_that_is_thrown_away_is_made_again_with_the_rows_that_came_meanwhile(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    Backfill(syncing).run(db)
    run_sql(engine, NEW_ORDER.format("2024-04-01"))
    apply(syncing, db)
    runner = Runner(syncing, db)
    runner.undo_backfill()
    rows = db.value("SELECT (SELECT count(*) FROM old_orders) + (SELECT count(*) FROM old_jobs)")

    assert is_accounted(syncing, db, rows)
    Backfill(syncing).run(db)
    assert ledger(db)["15"] == 1


@pytest.mark.parametrize("is_copied", [False, True])
def test_a_table_that_is_being_rewritten_is_not_taken_for_an_empty_one(
    syncing: Workspace, db: Session, engine: Engine, is_copied: bool
) -> None:
    if is_copied:
        Backfill(syncing).run(db)
    run_sql(engine, "UPDATE old_orders SET state = 'ok' WHERE id = 4")
    reconcilers = syncing.reconcilers(db)
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'old_orders'::regclass AND NOT granted"

    with syncing.session("other") as other, ThreadPoolExecutor(1) as thread:
        with other.transaction():
            other.run("ALTER TABLE old_orders ALTER note TYPE text USING note || ''")
            applied = thread.submit(sync.apply_changes, db, syncing, reconcilers)
            until(lambda: other.value(waiting))
        assert applied.result(20) == 1

    assert db.rows(BOUNDS) == [{"bound": "14", "cursor": "14" if is_copied else None}]
    assert db.value("SELECT count(*) FROM tracking.tasktrail_ledger WHERE deleted_at IS NOT NULL") == 0
    assert account.take(db, syncing, syncing.stagings(db)).is_balanced


@pytest.mark.parametrize("undo", ["undo_backfill", "undo_sync"])
def test_undoing_waits_for_whoever_carries_changes_over(syncing: Workspace, db: Session, undo: str) -> None:
    with syncing.session("other") as other, ThreadPoolExecutor(1) as thread:
        with other.locked(syncing.plan.name, "old_orders"):
            undone = thread.submit(getattr(Runner(syncing, db), undo))
            until(
                lambda: other.value(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                )
            )
            assert not undone.done()
        undone.result(20)
