"""The steps of a migration: in order, taken back, refused when they are out of place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from tasktrail.errors import GateClosed, PlanRefused, SchemaOutdated, WrongPhase
from tasktrail.migration import sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.numbering import FIRST_NEW_ID
from tasktrail.migration.plan import Refusal
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import NEXT_COMMAND, TRANSITIONS, Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.conftest import with_tables
from tests.migration.legacy import JOB_TABLE, ORDER_TABLE, ORDERS, run_sql
from tests.migration.test_backfill import final, reasons, verdicts
from tests.upkeep import Upkeep


@pytest.fixture
def runner(workspace: Workspace, db: Session) -> Runner:
    return Runner(workspace, db)


def copied(runner: Runner) -> None:
    runner.plan()
    runner.expand()
    runner.sync()
    runner.backfill(Backfill(runner.workspace))


def phase(runner: Runner) -> Phase:
    return runner.journal.require(runner.session, "look").phase


def test_every_phase_can_be_reached_and_says_how_to_go_on() -> None:
    assert {target for _, target in TRANSITIONS} == set(Phase)
    assert set(NEXT_COMMAND) == set(Phase)


def test_the_steps_in_their_order_end_in_a_verified_copy(runner: Runner) -> None:
    copied(runner)
    assert phase(runner) is Phase.BACKFILLED
    assert [verdict.differing for verdict in runner.verify()] == [0, 0, 0]

    assert phase(runner) is Phase.VERIFIED
    log = [event["what"] for event in runner.journal.events(runner.session)]
    assert log[0] == "backfilled -> verified: the copy was found right"
    assert log[-1] == "dry run"
    assert all("@" in event["who"] for event in runner.journal.events(runner.session))


def test_each_step_may_be_run_again(runner: Runner, db: Session) -> None:
    copied(runner)
    runner.verify()
    before = final(db)

    assert runner.plan().surprises == ()
    assert not runner.expand()
    assert not runner.sync()
    runner.backfill(Backfill(runner.workspace))
    runner.verify()
    assert final(db) == before
    assert phase(runner) is Phase.VERIFIED


def test_a_step_out_of_order_is_refused_with_the_command_to_go_on(runner: Runner) -> None:
    for step in (runner.expand, runner.sync, runner.verify):
        with pytest.raises(WrongPhase, match="not planned yet; go on with `tasktrail migrate plan`"):
            step()
    runner.plan()
    for step in (runner.sync, runner.verify):
        with pytest.raises(WrongPhase, match="is planned; go on with `tasktrail migrate expand`"):
            step()
    with pytest.raises(WrongPhase, match="cannot undo expand now, the migration is planned"):
        runner.undo_expand()
    runner.expand()
    with pytest.raises(WrongPhase, match="is expanded; go on with `tasktrail migrate sync`"):
        runner.backfill(Backfill(runner.workspace))
    runner.sync()
    with pytest.raises(WrongPhase, match="is syncing; go on with `tasktrail migrate backfill`"):
        runner.verify()


def test_a_plan_that_was_changed_since_its_dry_run_is_not_carried_out(runner: Runner, db: Session) -> None:
    runner.plan()
    stricter = replace(ORDERS, refusals=(*ORDERS.refusals, Refusal("no_tags", "s.tags IS NULL")))
    changed = Runner(with_tables(runner.workspace, replace(ORDER_TABLE, routes=(stricter,)), JOB_TABLE), db)
    with pytest.raises(GateClosed, match="the plan was changed since its last dry run"):
        changed.expand()
    changed.plan()

    assert changed.expand()


def test_a_second_dry_run_explains_what_is_different_from_the_copy(runner: Runner, engine: Engine) -> None:
    copied(runner)
    run_sql(engine, "UPDATE old_orders SET state = 'ok' WHERE id = 6")

    assert runner.plan().surprises == (
        "old_orders, order: migrated: 4 predicted, 3 now",
        "old_orders, order: quarantined (unknown_state): 0 predicted, 1 now",
    )


def test_damage_takes_the_verdict_back(runner: Runner, engine: Engine) -> None:
    copied(runner)
    runner.verify()
    run_sql(engine, "DELETE FROM tracking.order_tracking")
    assert any(verdict.differing for verdict in runner.verify())

    assert phase(runner) is Phase.BACKFILLED


def test_undone_to_the_first_phase_nothing_is_left_and_a_second_copy_is_the_same(
    runner: Runner, db: Session
) -> None:
    empty = final(db)
    copied(runner)
    whole = final(db)
    runner.undo_backfill()
    assert final(db) == empty
    runner.undo_sync()
    runner.undo_expand()
    assert phase(runner) is Phase.PLANNED
    assert sync.lag(db, runner.workspace).entries == 0
    copied(runner)

    assert final(db) == whole


def test_a_copy_that_was_verified_can_be_thrown_away_too(runner: Runner, db: Session) -> None:
    empty = final(db)
    copied(runner)
    runner.verify()
    assert phase(runner) is Phase.VERIFIED
    runner.undo_backfill()

    assert phase(runner) is Phase.SYNCING
    assert final(db) == empty


def test_rows_of_the_new_side_survive_that_the_copy_is_thrown_away(
    runner: Runner, db: Session, engine: Engine
) -> None:
    copied(runner)
    run_sql(
        engine,
        "INSERT INTO tracking.order_tracking (day, currency, celery_task_id) VALUES ('2030-01-01', "
        "'EUR', 'ours')",
    )
    runner.undo_backfill()

    assert db.value("SELECT count(*) FROM tracking.order_tracking") == 1


def test_new_rows_get_ids_that_no_legacy_row_will_have(runner: Runner, db: Session) -> None:
    runner.plan()
    runner.expand()
    made = db.value("INSERT INTO tracking.job_tracking (payload) VALUES ('new') RETURNING id")

    assert made >= FIRST_NEW_ID


def test_a_lost_trigger_is_put_on_again(runner: Runner, db: Session, engine: Engine) -> None:
    copied(runner)
    run_sql(engine, "DROP TRIGGER tasktrail_update_old_orders ON old_orders")
    assert runner.sync()

    (staging, _) = runner.workspace.stagings(db)
    assert sync.problems(db, staging) == []


def test_maintenance_neither_dispatches_nor_rescues_nor_prunes_a_mirrored_row(
    runner: Runner, db: Session, engine: Engine, database_url: str
) -> None:
    copied(runner)
    before = final(db)
    ages = db.rows(
        "SELECT max(now() - completed_at) > interval '60 days' AS is_old FROM tracking.order_tracking"
    )
    assert ages == [{"is_old": True}]
    upkeep = Upkeep(database_url)
    assert not upkeep.tick()
    assert upkeep.prune() == 0
    assert upkeep.outbox.sent == {}
    assert final(db) == before

    runner.undo_backfill()
    runner.undo_sync()
    runner.undo_expand()
    run_sql(
        engine,
        "INSERT INTO tracking.order_tracking (day, currency, status, created_at, completed_at) "
        "VALUES ('2020-01-01', 'EUR', 'COMPLETED', '2020-01-01', '2020-01-01')",
    )
    assert upkeep.prune() == 1
    upkeep.engines.dispose()


WRONG = [
    ("ALTER TABLE old_orders DROP COLUMN touched", "public.old_orders lacks the column touched"),
    ("DROP TABLE old_jobs", "the legacy table public.old_jobs is missing"),
    (
        "ALTER TABLE old_orders ALTER made TYPE timestamptz",
        "public.old_orders.made is timestamp with time zone, the plan was written for timestamp without",
    ),
    ("ALTER TABLE old_orders DROP CONSTRAINT old_orders_pkey", "public.old_orders has no unique index on id"),
    (
        "ALTER TABLE old_orders DROP CONSTRAINT old_orders_pkey, ADD UNIQUE (id), ALTER id DROP NOT NULL",
        "public.old_orders.id is part of the key and may be NULL",
    ),
    ("DROP TABLE tracking.job_tracking", "the table tracking.job_tracking is missing; apply the pending"),
    (
        "ALTER TABLE tracking.order_tracking DROP COLUMN tags",
        "tracking.order_tracking lacks the columns tags",
    ),
    (
        "ALTER TABLE tracking.order_tracking ADD COLUMN more int NOT NULL",
        "tracking.order_tracking.more is NOT NULL, has no default, and old_orders.orders has no rule",
    ),
    (
        "ALTER TABLE tracking.order_tracking DROP CONSTRAINT uq_order",
        "tracking.order_tracking has no unique index on day, currency",
    ),
    (
        (
            "ALTER TABLE tracking.job_tracking RENAME TO whole; "
            "CREATE TABLE tracking.job_tracking (LIKE tracking.whole) PARTITION BY RANGE (id)"
        ),
        "tracking.job_tracking is partitioned, which a migration cannot write to",
    ),
    (
        "ALTER TABLE tracking.order_tracking ALTER currency TYPE int USING 1",
        "old_orders.orders: currency gives character varying, tracking.order_tracking has integer",
    ),
]


@pytest.mark.parametrize(("damage", "problem"), WRONG)
def test_a_plan_that_does_not_fit_the_database_is_refused_and_nothing_is_written(
    runner: Runner, engine: Engine, damage: str, problem: str
) -> None:
    run_sql(engine, damage)
    with pytest.raises(PlanRefused) as refused:
        runner.plan()

    assert any(problem in one for one in refused.value.problems), refused.value.problems
    assert runner.journal.read(runner.session) is None


def test_sql_of_a_plan_that_the_server_does_not_understand_is_named(runner: Runner, db: Session) -> None:
    broken = replace(ORDERS, columns={**ORDERS.columns, "status": "no_such_column"})
    other = Runner(with_tables(runner.workspace, replace(ORDER_TABLE, routes=(broken,)), JOB_TABLE), db)

    with pytest.raises(PlanRefused, match=r'old_orders\.orders: column "no_such_column" does not exist'):
        other.plan()


def test_what_stands_in_the_way_of_dropping_is_noted(runner: Runner, engine: Engine) -> None:
    run_sql(engine, "CREATE VIEW latest AS SELECT * FROM old_orders")
    run_sql(engine, "CREATE TABLE lines (order_id int REFERENCES old_orders)")
    notes = runner.plan().prediction.inspected.notes

    assert "public.old_orders: the view latest points at it, and is in the way of dropping it" in notes
    assert any("the foreign key lines_order_id_fkey of lines" in note for note in notes)


def test_without_the_tables_of_the_library_there_is_one_clear_line(
    workspace: Workspace, engine: Engine
) -> None:
    run_sql(engine, "DROP TABLE tracking.tasktrail_ledger")
    with pytest.raises(SchemaOutdated, match="apply the pending migrations first"), workspace.session("test"):
        pass


def test_a_role_without_rights_is_told_which_ones(runner: Runner, db: Session, engine: Engine) -> None:
    run_sql(engine, "CREATE ROLE poor; GRANT USAGE ON SCHEMA tracking TO poor")
    run_sql(engine, "GRANT ALL ON ALL TABLES IN SCHEMA tracking TO poor; GRANT SELECT ON old_orders TO poor")
    try:
        db.run("SET ROLE poor")
        with pytest.raises(
            PlanRefused,
            match=r"does not own public\.old_orders, .* run as postgres, or GRANT postgres TO poor",
        ):
            runner.plan()
    finally:
        db.run("RESET ROLE")
        run_sql(engine, "DROP OWNED BY poor; DROP ROLE poor")


def test_reasons_and_verdicts_are_those_of_the_copy(runner: Runner, db: Session) -> None:
    copied(runner)

    assert reasons(db)["12"] == "archived not_a_job"
    assert [verdict.way for verdict in verdicts(runner.workspace, db)] == ["account", "checksum", "twin"]
