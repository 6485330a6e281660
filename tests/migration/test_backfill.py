"""The copy of the rows that are there already: the same tables at the end, whatever happens under way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from tasktrail.errors import (
    DatabaseUnavailable,
    ErrorBudgetExceeded,
    MigrationBusy,
    MigrationPaused,
    WrongPhase,
)
from tasktrail.migration import account, dry_run
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.copier import Copier, Progress, next_size
from tasktrail.migration.quarantine import Quarantine
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.sync import apply_changes
from tasktrail.migration.throttle import Throttle
from tasktrail.migration.verify import Verdict, verify_account, verify_checksums
from tasktrail.migration.witness import verify_twins
from tasktrail.migration.workspace import Workspace
from tests.migration.conftest import start_syncing, with_tables
from tests.migration.legacy import JOB_TABLE, ORDER_TABLE, ORDERS, run_sql
from tests.waiting import until

ORDERS_NOW = """
    SELECT day::text, currency, tags, details, status, error_message, attempts, created_at, updated_at,
        completed_at, started_at, next_attempt_at, heartbeat_at, celery_task_id, worker, dispatched_at,
        attempt_log
    FROM tracking.order_tracking ORDER BY day, currency
"""
LEDGER_NOW = """
    SELECT table_name, source_key, source_hash, disposition, route, target_key, reason, inferred,
        deleted_at IS NOT NULL AS is_gone FROM tracking.tasktrail_ledger ORDER BY 1, 2
"""


def final(db: Session) -> list[Any]:
    """Return everything that must not depend on how it came about."""
    raw = "SELECT table_name, source_key, source_hash, raw FROM tracking.tasktrail_raw ORDER BY 1, 2"
    jobs = "SELECT * FROM tracking.job_tracking ORDER BY id"
    return [db.rows(ORDERS_NOW), db.rows(jobs), db.rows(LEDGER_NOW), db.rows(raw)]


def verdicts(workspace: Workspace, db: Session) -> list[Verdict]:
    stagings = workspace.stagings(db)
    with db.snapshot(read_only=True):
        return [
            verify(db, workspace, stagings) for verify in (verify_account, verify_checksums, verify_twins)
        ]


def reasons(db: Session, table: str = "old_orders") -> dict[str, str]:
    rows = db.rows(
        "SELECT source_key, disposition || coalesce(' ' || reason, '') AS what FROM "
        "tracking.tasktrail_ledger "
        "WHERE table_name = %(table)s AND deleted_at IS NULL ORDER BY source_key::int",
        table=table,
    )
    return {row["source_key"]: row["what"] for row in rows}


def test_each_row_goes_where_the_plan_says(syncing: Workspace, db: Session) -> None:
    Backfill(syncing).run(db)

    assert reasons(db) == {
        "1": "consolidated newer_row",
        "2": "consolidated newer_row",
        "3": "migrated",  # as new as the first, with a greater id
        "4": "migrated",
        "5": "migrated",
        "6": "quarantined unknown_state",
        "7": "quarantined bad_day",
        "8": "quarantined bad_day",
        "9": "quarantined bad_currency",
        "10": "quarantined bad_details",
        "11": "quarantined no_time",
        "12": "archived not_a_job",
        "13": "quarantined unknown_type",
        "14": "quarantined unknown_type",
    }
    assert [verdict.differing for verdict in verdicts(syncing, db)] == [0, 0, 0]
    assert syncing.journal.require(db, "look").phase is Phase.BACKFILLED


def test_consolidated_rows_are_entries_of_the_log_of_the_newest_oldest_first(
    syncing: Workspace, db: Session
) -> None:
    Backfill(syncing).run(db)
    (row,) = [row for row in db.rows(ORDERS_NOW) if row["day"] == "2024-03-01"]

    assert row["status"] == "CANCELLED"
    assert [(entry["number"], entry["outcome"], entry["error"]) for entry in row["attempt_log"]] == [
        (1, "error", "boom"),
        (2, "superseded", "a later legacy row took its place; this one was COMPLETED"),
    ]


def test_of_many_rows_for_one_unit_of_work_the_newest_fifty_are_in_the_log(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine,
        "INSERT INTO old_orders (kind, state, day, currency, note, made, touched) SELECT 'order', 'broken', "
        "'2024-05-01', 'EUR', 'try ' || n, timestamp '2024-05-01' + n * interval '1 minute', "
        "timestamp '2024-05-01' + n * interval '1 minute' FROM generate_series(1, 120) n",
    )
    Backfill(syncing).run(db)
    (row,) = [row for row in db.rows(ORDERS_NOW) if row["day"] == "2024-05-01"]

    assert row["error_message"] == "try 120"
    assert [entry["number"] for entry in row["attempt_log"]] == list(range(70, 120))
    assert [entry["error"] for entry in row["attempt_log"]] == [f"try {n}" for n in range(70, 120)]
    assert [verdict.differing for verdict in verdicts(syncing, db)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("size", "worked", "following"),
    [(800, 8.0, 400), (150, 8.0, 100), (80, 8.0, 80), (800, 2.0, 800), (400, 0.4, 800), (900, 0.4, 1000)],
)
def test_a_slow_chunk_is_followed_by_a_smaller_one_and_a_fast_one_by_a_larger_one(
    size: int, worked: float, following: int
) -> None:
    assert next_size(size, worked, most=1000) == following


def test_a_slow_chunk_that_mostly_took_earlier_rows_of_its_units_is_followed_by_a_larger_one() -> None:
    assert next_size(400, 8.0, most=1000, revisited=401) == 800


def test_mirrored_rows_are_held_and_not_leased(syncing: Workspace, db: Session) -> None:
    Backfill(syncing).run(db)

    for row in db.rows(ORDERS_NOW):
        kept = ("next_attempt_at", "heartbeat_at", "celery_task_id", "worker", "dispatched_at")
        assert [row[name] for name in kept] == [None] * 5


def test_the_raw_row_is_kept_for_what_was_not_migrated_as_it_was(syncing: Workspace, db: Session) -> None:
    Backfill(syncing).run(db)
    kept = db.rows("SELECT source_key, raw FROM tracking.tasktrail_raw WHERE table_name = 'old_orders'")

    assert {row["source_key"] for row in kept} == set(map(str, range(1, 15))) - {"3"}
    assert r'"details":{"a": "\u0000"}' in next(row["raw"] for row in kept if row["source_key"] == "10")


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_the_size_of_a_chunk_makes_no_difference(
    syncing: Workspace, db: Session, make_database: Any, library_template: str, chunk_size: int
) -> None:
    Backfill(syncing).run(db)
    whole = final(db)
    other, other_db = another(syncing, make_database(library_template))
    Backfill(other, chunk_size=chunk_size).run(other_db)
    cut = final(other_db)
    other_db.close()

    assert cut == whole


def another(workspace: Workspace, url: str, rows: str = "") -> tuple[Workspace, Session]:
    from sqlalchemy import create_engine

    from tasktrail.engines import Engines
    from tests.migration.legacy import create_legacy

    engine = create_engine(url)
    create_legacy(engine)
    if rows:
        run_sql(engine, rows)
    engine.dispose()
    other = replace(workspace, engines=Engines(url))
    session = Session(other.engines.dedicated("test"))
    start_syncing(other, session)
    return other, session


MANY = """
    INSERT INTO old_orders (kind, state, day, currency, tags, made, touched)
    SELECT 'order', (ARRAY['ok', 'broken', 'odd'])[1 + n % 3], (date '2020-01-01' + n % 700)::text,
        'EUR', 'a,b',
        timestamp '2020-01-01' + n * interval '1 minute', timestamp '2020-01-02' + n * interval '1 minute'
    FROM generate_series(1, 3000) n
"""


class Killed(BaseException):
    """What a process that is killed would not even see."""


def killed_after(workspace: Workspace, statements: int) -> bool:
    """Copy with a session whose connection is gone after so many statements; return whether it was."""
    left = 100  # for setting itself up

    class Mortal(Session):
        def run(self, text: str, **parameters: Any) -> int:
            nonlocal left
            left -= 1
            if left < 0:
                self.connection.close()
                raise Killed
            return super().run(text, **parameters)

    session = Mortal(workspace.engines.dedicated("mortal"))
    left = statements
    try:
        Backfill(workspace, chunk_size=2, connections=1).run(session)
    except Killed:
        return True
    session.close()
    return False


def test_killed_after_any_statement_and_resumed_it_ends_in_the_same_tables(
    syncing: Workspace, db: Session, make_database: Any, library_template: str
) -> None:
    Backfill(syncing, chunk_size=6).run(db)
    undisturbed = final(db)
    other, other_db = another(syncing, make_database(library_template))
    deaths, patience = 0, 3
    while killed_after(other, patience):
        deaths, patience = deaths + 1, patience + 1
    seen = final(other_db)
    chunks = other_db.rows(
        "SELECT chunk, rows_done FROM tracking.tasktrail_migration_tables ORDER BY table_name"
    )
    other_db.close()

    assert seen == undisturbed
    assert deaths > 20
    assert [row["rows_done"] for row in chunks] == [12, 14]  # no chunk was applied twice or skipped


def test_a_connection_that_is_cut_leaves_the_chunks_before_it(syncing: Workspace, db: Session) -> None:
    def cut(progress: Progress) -> None:
        if progress.done == 8:
            with syncing.session("operator") as operator:
                operator.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name "
                    "= 'tasktrail victim'"
                )

    with pytest.raises(DatabaseUnavailable), syncing.session("victim") as victim:
        Backfill(syncing, chunk_size=4, report=cut, connections=1).run(victim)
    assert len(reasons(db)) == 8
    Backfill(syncing, chunk_size=4).run(db)

    assert len(reasons(db)) == 14


def test_two_runs_that_copy_the_same_chunk_count_it_once(syncing: Workspace, db: Session) -> None:
    reconciler, _ = syncing.reconcilers(db)
    with syncing.session("other") as other:
        rival = copier(syncing, syncing.reconcilers(other)[0])

        def overtake(_: Progress) -> None:
            rival.run(other)

        class Overtaken(Copier):
            """Reads where it is, and is slow from then on."""

            def _position(self, session: Session) -> dict[str, Any]:
                position = super()._position(session)
                overtake(Progress("", 0, 0, 0.0, 0))
                return position

        with pytest.raises(MigrationBusy, match="another run has copied this chunk meanwhile"):
            copier(syncing, reconciler, Overtaken).run(db)
    (chunks,) = db.rows("SELECT rows_done FROM tracking.tasktrail_migration_tables WHERE rows_done > 0")

    assert chunks["rows_done"] == 14


def copier(workspace: Workspace, reconciler: Reconciler, kind: type[Copier] = Copier) -> Copier:
    return kind(workspace, reconciler, chunk_size=20, throttle=Throttle(), report=lambda _: None)


def test_a_failure_in_one_table_ends_the_copy_of_the_others_after_their_chunk(
    workspace: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_orders SET tags = 'far too long' WHERE id = 1")
    run_sql(engine, "INSERT INTO old_jobs (made) SELECT now() FROM generate_series(1, 300)")
    start_syncing(workspace, db)
    others = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%backfill old_orders'"

    def wait_for_the_failure(progress: Progress) -> None:
        if progress.table == "old_jobs":
            until(lambda: not db.value(others))

    with pytest.raises(ErrorBudgetExceeded):
        Backfill(workspace, chunk_size=1, report=wait_for_the_failure).run(db)
    done = "SELECT rows_done FROM tracking.tasktrail_migration_tables WHERE table_name = 'old_jobs'"

    assert 0 < db.value(done) < 300


def test_a_second_run_changes_nothing(syncing: Workspace, db: Session) -> None:
    Backfill(syncing).run(db)
    before = final(db)
    versions = "SELECT xmin::text FROM tracking.order_tracking "
    versions += "UNION ALL SELECT xmin::text FROM tracking.tasktrail_ledger"
    written = db.rows(versions)
    with db.transaction():
        db.run("UPDATE tracking.tasktrail_migration_tables SET cursor = NULL, finished_at = NULL")
    Backfill(syncing).run(db)

    assert final(db) == before
    assert db.rows(versions) == written


def test_a_dry_run_writes_nothing_and_predicts_every_count(workspace: Workspace, db: Session) -> None:
    before = final(db)
    prediction = dry_run.predict(db, workspace)

    assert final(db) == before
    start_syncing(workspace, db)
    Backfill(workspace).run(db)
    real = account.take(db, workspace, workspace.stagings(db))
    assert dry_run.differences(prediction.account, real) == []
    run_sql_on(db, "UPDATE old_orders SET state = 'ok' WHERE id = 6")
    again = dry_run.predict(db, workspace)
    assert dry_run.differences(prediction.account, again.account) == [
        "old_orders, order: migrated: 3 predicted, 4 now",
        "old_orders, order: quarantined (unknown_state): 1 predicted, 0 now",
    ]


def run_sql_on(db: Session, sql: str) -> None:
    with db.transaction():
        db.run(sql)


def test_the_account_says_where_every_row_is(syncing: Workspace, db: Session) -> None:
    Backfill(syncing).run(db)
    found = account.take(db, syncing, syncing.stagings(db))

    assert found.is_balanced
    assert found.equation("old_orders") == (
        "old_orders: 14 rows = 3 migrated + 2 consolidated + 8 quarantined + 1 archived"
    )
    view = db.rows("SELECT * FROM tracking.tasktrail_account_shop")
    assert sum(row["rows"] for row in view) == 26


def test_a_row_that_its_transform_did_not_expect_stops_the_copy_before_its_chunk(
    workspace: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_orders SET tags = 'far too long' WHERE id = 5")
    start_syncing(workspace, db)
    with pytest.raises(
        ErrorBudgetExceeded, match=r"1 rows made their transform fail, 0 may; e\.g\. 5: error_22001"
    ):
        Backfill(workspace, chunk_size=2).run(db)

    assert list(reasons(db)) == ["1", "2", "3", "4"]


def test_within_the_error_budget_such_a_row_is_quarantined_and_never_cut(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_orders SET tags = 'far too long' WHERE id = 5")
    Backfill(syncing, error_budget=1).run(db)

    assert reasons(db)["5"] == "quarantined error_22001"
    counted = "SELECT errors FROM tracking.tasktrail_migration_tables WHERE table_name = 'old_orders'"
    assert db.value(counted) <= 1
    by_account, _, by_twins = verdicts(syncing, db)
    assert by_account.differing == 0
    (difference,) = by_twins.differences  # the twin has no such limit, so the two disagree
    assert (difference.key, difference.expected, difference.found) == (
        "5",
        "migrated",
        "quarantined error_22001",
    )


def test_quarantined_rows_are_driven_through_a_changed_rule(syncing: Workspace, db: Session) -> None:
    Backfill(syncing).run(db)
    quarantine = Quarantine(syncing)
    heaps = {(heap.table, heap.reason): heap for heap in quarantine.heaps(db)}
    assert heaps["old_orders", "bad_day"].rows == 2
    assert heaps["old_orders", "bad_day"].example == "7"

    lenient = replace(
        ORDERS,
        columns={**ORDERS.columns, "currency": "upper(s.currency)"},
        refusals=tuple(rule for rule in ORDERS.refusals if rule.reason != "bad_currency"),
    )
    changed = with_tables(syncing, replace(ORDER_TABLE, routes=(lenient,), rule_version=2), JOB_TABLE)
    done = Quarantine(changed).redrive(db, changed.reconcilers(db), reason="bad_currency")

    assert done == {"driven": 1, "released": 1}
    shown = quarantine.show(db, "old_orders", "9")
    assert (shown["disposition"], shown["rule_version"], shown["raw"]) == ("migrated", 2, None)


def test_accepting_is_by_name_and_ends_when_the_row_changes(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    Backfill(syncing).run(db)
    quarantine = Quarantine(syncing)
    assert quarantine.accept(db, table="old_orders", reason="bad_day", note="test data") == 2
    assert quarantine.accept(db, table="old_orders", reason="bad_day", note="again") == 0

    run_sql(engine, "UPDATE old_orders SET day = '2024-02-31' WHERE id = 7")
    apply_changes(db, syncing, syncing.reconcilers(db))
    (heap,) = [heap for heap in quarantine.heaps(db) if heap.reason == "bad_day"]
    assert (heap.rows, heap.accepted, heap.example) == (2, 1, "7")


def test_a_pause_ends_the_copy_after_a_chunk_and_it_goes_on_from_there(
    syncing: Workspace, db: Session
) -> None:
    seen: list[Progress] = []

    def pause_at_once(progress: Progress) -> None:
        seen.append(progress)
        with syncing.session("operator") as operator:
            syncing.journal.pause(operator, paused=True)

    with pytest.raises(MigrationPaused, match="go on with `tasktrail migrate resume`"):
        Backfill(syncing, chunk_size=4, report=pause_at_once).run(db)
    assert len(reasons(db)) == 4
    syncing.journal.pause(db, paused=False)
    Backfill(syncing, chunk_size=4, report=seen.append).run(db)

    assert len(reasons(db)) == 14
    assert [progress.done for progress in seen if progress.table == "old_orders"] == [4, 8, 12, 14]


def test_two_backfills_at_once_are_refused(syncing: Workspace, db: Session) -> None:
    reason = r"cannot copy rows while somebody else does .pid [0-9]+ of tasktrail first"
    with (
        syncing.session("first") as first,
        first.alone("shop", "runner", doing="copy rows"),
        pytest.raises(MigrationBusy, match=reason),
    ):
        Backfill(syncing).run(db)


def test_without_triggers_nothing_is_copied(workspace: Workspace, db: Session) -> None:
    with pytest.raises(WrongPhase, match="not planned yet; go on with `tasktrail migrate plan`"):
        Backfill(workspace).run(db)
    workspace.journal.begin(db)
    with pytest.raises(WrongPhase, match="is planned; go on with `tasktrail migrate expand`"):
        Backfill(workspace).run(db)


def test_the_copy_does_not_wait_for_replicas_that_are_not_there(db: Session) -> None:
    slept: list[float] = []
    Throttle(replication_lag=0.0).rest(db, 1.0, slept.append)

    assert slept == []


def test_the_copy_rests_for_its_share_and_while_others_wait_for_locks(db: Session) -> None:
    slept: list[float] = []
    Throttle(share=0.25).rest(db, 1.0, slept.append)
    Throttle(lock_waits=-1, patience=1.0).rest(db, 1.0, slept.append)

    assert slept[0] == 3.0
    assert sum(slept[1:]) >= 1.0
