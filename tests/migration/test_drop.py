"""Dropping the legacy tables: only what is archived and needed by nobody; and making them again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from tasktrail.errors import GateClosed, MigrationBusy, MigrationError, WrongPhase
from tasktrail.migration import ddl, sync
from tasktrail.migration import drop as dropping
from tasktrail.migration.archive import archive, undo_archive
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.copies import recorded
from tasktrail.migration.drop import drop, gate
from tasktrail.migration.quarantine import Quarantine
from tasktrail.migration.restore import restore, restore_dropped
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration import odd
from tests.migration.conftest import cut_over, start_syncing
from tests.migration.legacy import run_sql

LEGACY = ("public.old_orders", "public.old_jobs")


@pytest.fixture
def archived(syncing: Workspace, db: Session) -> Workspace:
    """The migration after its archives were made, with no window to wait for."""
    cut_over(syncing, db)
    archive(db, syncing)
    return syncing


def phase(workspace: Workspace, db: Session) -> Phase:
    return workspace.journal.require(db, "look").phase


def are_there(db: Session) -> list[bool]:
    return [db.value("SELECT to_regclass(%(name)s) IS NOT NULL", name=name) for name in LEGACY]


def test_the_tables_are_dropped_with_all_that_the_migration_put_on_them(
    archived: Workspace, db: Session
) -> None:
    assert gate(db, archived) == []
    archives = drop(db, archived)

    assert [str(one.measure).split(" with")[0] for one in archives] == ["14 rows", "12 rows"]
    assert all(one.dropped_at for one in archives)
    assert (phase(archived, db), are_there(db)) == (Phase.DROPPED, [False, False])
    assert db.rows("SELECT proname FROM pg_proc WHERE proname LIKE 'tasktrail_note_%'") == []
    assert drop(db, archived) == []


def test_what_works_without_the_legacy_tables_goes_on_working_after_the_drop(
    archived: Workspace, db: Session
) -> None:
    runner = Runner(archived, db)
    before = runner.account()
    drop(db, archived)

    assert runner.account() == before
    assert before.is_balanced
    seen = db.rows("SELECT sum(rows)::int AS rows FROM tracking.tasktrail_account_shop")
    assert seen == [{"rows": 26}]
    quarantine = Quarantine(archived)
    assert [heap.reason for heap in quarantine.heaps(db) if heap.table == "old_jobs"] == ["unknown_state"]
    assert quarantine.show(db, "old_orders", "7")["reason"] == "bad_day"


def test_what_needs_the_legacy_tables_is_refused_after_the_drop(archived: Workspace, db: Session) -> None:
    runner = Runner(archived, db)
    drop(db, archived)

    for step in (
        runner.plan,
        runner.sync,
        runner.verify,
        runner.undo_backfill,
        lambda: runner.backfill(Backfill(archived)),
        lambda: archived.reconcilers(db),
        lambda: archive(db, archived),
    ):
        with pytest.raises(WrongPhase, match="the migration is dropped; go on with `tasktrail migrate"):
            step()
    with pytest.raises(WrongPhase, match="all there is of the legacy rows"):
        undo_archive(db, archived)


def test_a_drop_before_its_time_is_refused_with_the_command_to_go_on(syncing: Workspace, db: Session) -> None:
    cut_over(syncing, db, window=timedelta(days=7))
    with pytest.raises(GateClosed, match="is cut_over, not archived; go on with `tasktrail migrate archive`"):
        drop(db, syncing)
    archive(db, syncing)
    with pytest.raises(
        GateClosed, match=r"lasts until 20\d\d-.*; look again then with `tasktrail migrate drop`"
    ):
        drop(db, syncing)
    undo_archive(db, syncing)
    archive(db, syncing)

    assert len(gate(db, syncing)) == 1, "the window is that of the cutover"
    assert are_there(db) == [True, True]


def test_a_window_that_is_over_is_in_nobodys_way(syncing: Workspace, db: Session) -> None:
    cut_over(syncing, db, window=timedelta(seconds=-1))
    archive(db, syncing)

    assert gate(db, syncing) == []


def test_an_archive_that_was_not_tested_or_is_missing_closes_the_gate(
    archived: Workspace, db: Session
) -> None:
    db.run("UPDATE tracking.tasktrail_archives SET tested_at = NULL WHERE table_name = 'old_orders'")
    db.run("DELETE FROM tracking.tasktrail_archives WHERE table_name = 'old_jobs'")

    remedy = "make it anew with `tasktrail migrate archive`"
    assert gate(db, archived) == [
        f"public.old_orders has an archive that was not restored for a test; {remedy}",
        f"public.old_jobs has no archive; {remedy}",
    ]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("CREATE VIEW jobs_view AS SELECT * FROM old_jobs", "the view jobs_view depends on public.old_jobs"),
        (
            "CREATE MATERIALIZED VIEW jobs_seen AS SELECT * FROM old_jobs",
            "the view jobs_seen depends on public.old_jobs",
        ),
        (
            "CREATE TABLE notes (job bigint REFERENCES old_jobs)",
            "the foreign key notes_job_fkey of notes depends on public.old_jobs",
        ),
        (
            "CREATE FUNCTION newest() RETURNS bigint BEGIN ATOMIC SELECT max(id) FROM old_jobs; END",
            "function newest() depends on table old_jobs",
        ),
        (
            "CREATE TABLE notes (id bigint DEFAULT nextval('old_jobs_id_seq'))",
            "default value for column id of table notes depends on sequence old_jobs_id_seq",
        ),
    ],
)
def test_tables_that_something_depends_on_are_not_dropped(
    archived: Workspace, db: Session, engine: Engine, sql: str, reason: str
) -> None:
    run_sql(engine, sql)
    with pytest.raises(GateClosed) as refused:
        drop(db, archived)

    assert reason in str(refused.value)
    assert "then run `tasktrail migrate drop --yes` again" in str(refused.value)
    assert (phase(archived, db), are_there(db)) == (Phase.ARCHIVED, [True, True])
    assert all(sync.problems(db, staging) == [] for staging in archived.stagings(db))


def test_tables_that_an_old_worker_writes_to_are_not_dropped(
    archived: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, "UPDATE old_jobs SET payload = 'late' WHERE id = 5")

    (reason,) = gate(db, archived)
    assert reason.startswith(
        "an old worker wrote to public.old_jobs: 1 changes are not dealt with, e.g. of the row 5; stop it"
    )
    with pytest.raises(GateClosed, match="an old worker wrote to"):
        drop(db, archived)


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_write_after_the_last_refresh_keeps_the_tables(
    archived: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, is_noted: bool
) -> None:
    def renew_and_write(session: Session, workspace: Workspace) -> None:
        renew(session, workspace)
        if not is_noted:
            run_sql(engine, "ALTER TABLE old_jobs DISABLE TRIGGER USER")
        run_sql(engine, "UPDATE old_jobs SET payload = 'late' WHERE id = 5")

    renew = dropping.renew
    monkeypatch.setattr(dropping, "renew", renew_and_write)
    with pytest.raises(GateClosed) as refused:
        drop(db, archived)

    assert ("an old worker wrote to public.old_jobs" in str(refused.value)) is is_noted
    assert "was written to since it was archived a moment ago: it holds 12 rows" in str(refused.value)
    assert db.value("SELECT payload FROM old_jobs WHERE id = 5") == "late"
    assert phase(archived, db) is Phase.ARCHIVED


def test_what_was_written_since_the_archive_was_made_is_in_it_when_the_tables_go(
    archived: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(
        engine, "UPDATE old_jobs SET payload = 'followed' WHERE id = 5; DELETE FROM old_jobs WHERE id = 6"
    )
    db.run("DELETE FROM tracking.tasktrail_changes")  # as if the new side had written it
    drop(db, archived)

    assert db.value("SELECT payload FROM tracking.archived_old_jobs WHERE id = 5") == "followed"
    assert db.value("SELECT count(*) FROM tracking.archived_old_jobs") == 11


def test_a_long_transaction_keeps_the_tables_and_all_is_as_before(
    archived: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl, "ATTEMPTS", 2)
    monkeypatch.setattr(ddl, "LOCK_TIMEOUT", 20)
    with engine.connect() as reader:
        reader.exec_driver_sql("SELECT 1 FROM old_orders")
        with pytest.raises(MigrationError, match="could not drop the legacy tables: the lock was not had"):
            drop(db, archived)

    assert (phase(archived, db), are_there(db)) == (Phase.ARCHIVED, [True, True])
    assert all(sync.problems(db, staging) == [] for staging in archived.stagings(db))
    assert Runner(archived, db).account().is_balanced
    assert len(drop(db, archived)) == 2


@pytest.fixture
def owner(engine: Engine) -> Iterator[str]:
    """A role that owns a legacy table and gave others rights on it."""
    name = f"old_owner_{uuid4().hex[:8]}"
    run_sql(engine, f"CREATE ROLE {name}; CREATE ROLE {name}_reader; GRANT ALL ON SCHEMA public TO {name}")
    yield name
    run_sql(
        engine, f"DROP OWNED BY {name} CASCADE; DROP OWNED BY {name}_reader; DROP ROLE {name}, {name}_reader"
    )


@pytest.fixture
def odd_archived(workspace: Workspace, db: Session, engine: Engine, owner: str) -> Workspace:
    """The same with an odd table, which somebody else owns."""
    run_sql(engine, odd.DDL)
    run_sql(
        engine,
        f"ALTER TABLE old_jobs OWNER TO {owner}; REVOKE TRUNCATE ON old_jobs FROM {owner};"
        "GRANT SELECT ON old_jobs TO PUBLIC;"
        f"GRANT INSERT, UPDATE (day, state) ON old_jobs TO {owner}_reader;"
        f"GRANT DELETE ON old_jobs TO {owner}_reader WITH GRANT OPTION;"
        f"GRANT USAGE ON SEQUENCE old_jobs_id_seq TO {owner}_reader",
    )
    start_syncing(workspace, db)
    cut_over(workspace, db)
    archive(db, workspace)
    return workspace


def test_a_restored_table_is_for_pg_dump_the_table_that_was_dropped(
    odd_archived: Workspace, db: Session, engine: Engine
) -> None:
    before = odd.dumped(engine, *LEGACY)
    drop(db, odd_archived)
    notes = restore_dropped(db, odd_archived)

    assert notes == []
    assert odd.dumped(engine, *LEGACY) == before
    assert "INSERT INTO public.old_jobs" in before


def test_restored_tables_follow_again(odd_archived: Workspace, db: Session, engine: Engine) -> None:
    newest = db.value("SELECT max(id) FROM old_orders")
    drop(db, odd_archived)
    restore_dropped(db, odd_archived)

    assert phase(odd_archived, db) is Phase.CUT_OVER
    assert all(sync.problems(db, staging) == [] for staging in odd_archived.stagings(db))
    assert [one.dropped_at for one in recorded(db, odd_archived)] == [None, None]
    assert db.value("INSERT INTO old_orders (kind) VALUES ('late') RETURNING id") == newest + 1
    assert sync.lag(db, odd_archived).entries == 1
    view = "SELECT fate, rows FROM tracking.tasktrail_account_shop WHERE kind = 'late'"
    assert db.rows(view) == [{"fate": "pending", "rows": 1}]


def test_dropped_and_restored_tables_can_be_archived_and_dropped_again(
    odd_archived: Workspace, db: Session
) -> None:
    for _ in range(2):
        drop(db, odd_archived)
        restore_dropped(db, odd_archived)
        archive(db, odd_archived)

    assert gate(db, odd_archived) == []


def test_a_table_of_the_same_name_is_not_overwritten(
    archived: Workspace, db: Session, engine: Engine
) -> None:
    drop(db, archived)
    run_sql(engine, "CREATE TABLE old_jobs (mine int)")
    with pytest.raises(MigrationError, match=r"there is a table public\.old_jobs already"):
        restore_dropped(db, archived)

    assert (phase(archived, db), are_there(db)) == (Phase.DROPPED, [False, True])
    run_sql(engine, "DROP TABLE old_jobs")
    assert restore_dropped(db, archived) == []


def test_a_damaged_archive_is_not_restored(archived: Workspace, db: Session) -> None:
    drop(db, archived)
    db.run("UPDATE tracking.archived_old_jobs SET payload = 'other' WHERE id = 3")
    with pytest.raises(MigrationError, match=r"tracking\.archived_old_jobs holds 12 rows with the checksum"):
        restore_dropped(db, archived)

    assert (phase(archived, db), are_there(db)) == (Phase.DROPPED, [False, False])


def test_rows_whose_other_row_is_gone_are_restored_all_the_same(
    odd_archived: Workspace, db: Session, engine: Engine
) -> None:
    drop(db, odd_archived)
    run_sql(engine, "DELETE FROM customers WHERE id = 'ann'")
    notes = restore_dropped(db, odd_archived)

    assert len(notes) == 1
    assert "of_customer of public.old_jobs holds for new rows only: Key (customer)=(ann)" in notes[0]
    assert db.value("SELECT count(*) FROM old_jobs") == 12


def test_a_table_is_restored_without_a_key_to_a_table_or_a_right_of_a_role_that_is_gone(
    odd_archived: Workspace, db: Session, engine: Engine, owner: str
) -> None:
    drop(db, odd_archived)
    run_sql(
        engine,
        f"DROP TABLE customers; DROP OWNED BY {owner}_reader; DROP ROLE {owner}_reader; "
        f"CREATE ROLE {owner}_reader_2",
    )
    notes = restore_dropped(db, odd_archived)
    run_sql(engine, f"ALTER ROLE {owner}_reader_2 RENAME TO {owner}_reader")

    assert "public.old_jobs has no foreign key of_customer: public.customers is not there" in notes
    assert sum(f'TO "{owner}_reader"' in note and "was refused" in note for note in notes) == 5


def test_copies_for_a_look_can_be_made_before_and_after_the_drop(
    odd_archived: Workspace, db: Session
) -> None:
    for schema in ("look", "Look again"):
        restore(db, odd_archived, schema)
        count = f'SELECT count(*) FROM "{schema}".old_jobs WHERE "Strange ""Name" IS NOT NULL'
        assert db.value(count) == 2
        db.run(f'INSERT INTO "{schema}".old_jobs (made, state) VALUES (now(), $$loud$$)')
        with pytest.raises(MigrationError, match=r"there is a table .*old_orders, .*old_jobs already"):
            restore(db, odd_archived, schema)
        drop(db, odd_archived)

    assert phase(odd_archived, db) is Phase.DROPPED


def test_nobody_drops_while_another_does(archived: Workspace, db: Session) -> None:
    busy = pytest.raises(MigrationBusy, match="cannot drop the legacy tables while somebody else does")
    with archived.session("another") as other, other.alone("shop", "runner", doing="archive"), busy:
        drop(db, archived)
