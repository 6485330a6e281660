"""The archives of the legacy tables: faithful, tested, and brought up to date."""

from __future__ import annotations

import threading
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import Engine

from tasktrail.errors import ConfigurationError, GateClosed, MigrationError, PlanRefused, WrongPhase
from tasktrail.migration import copies
from tasktrail.migration import restore as restoring
from tasktrail.migration.archive import archive, undo_archive
from tasktrail.migration.copies import Measure, measure, recorded
from tasktrail.migration.definition import differences, read
from tasktrail.migration.restore import restore, try_out
from tasktrail.migration.session import Session, lock_key
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration import odd
from tests.migration.conftest import cut_over, start_syncing
from tests.migration.legacy import run_sql
from tests.waiting import until

ARCHIVES = ["tracking.archived_old_orders", "tracking.archived_old_jobs"]


@pytest.fixture
def over(syncing: Workspace, db: Session) -> Workspace:
    """The migration after its cutover."""
    cut_over(syncing, db)
    return syncing


@pytest.fixture
def odd_over(workspace: Workspace, db: Session, engine: Engine) -> Workspace:
    """The same with an odd legacy table."""
    run_sql(engine, odd.DDL)
    start_syncing(workspace, db)
    cut_over(workspace, db)
    return workspace


def phase(workspace: Workspace, db: Session) -> Phase:
    return workspace.journal.require(db, "look").phase


def are_there(db: Session) -> list[bool]:
    return [db.value("SELECT to_regclass(%(name)s) IS NOT NULL", name=name) for name in ARCHIVES]


def versions(db: Session) -> dict[int, str]:
    """Where each row of an archive lies: another place for one that was written."""
    return {row["id"]: row["place"] for row in db.rows(f"SELECT id, ctid::text AS place FROM {ARCHIVES[1]}")}


def test_the_archives_hold_the_rows_and_were_tested(over: Workspace, db: Session) -> None:
    archives = archive(db, over)

    assert [one.name for one in archives] == ARCHIVES
    assert [one.measure.rows for one in archives] == [14, 12]
    assert all(one.tested_at and one.tested_at >= one.archived_at for one in archives)
    assert phase(over, db) is Phase.ARCHIVED
    assert db.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tasktrail_restore%'") == 0


def test_an_archive_has_the_types_checks_and_key_of_its_table_but_no_default(
    odd_over: Workspace, db: Session
) -> None:
    archive(db, odd_over)
    with db.transaction():
        table, copy = read(db, "public.old_jobs"), read(db, ARCHIVES[1])

    kept = ("name", "type", "is_required", "collation")
    assert [[one[part] for part in kept] for one in copy["columns"]] == [
        [one[part] for part in kept] for one in table["columns"]
    ]
    assert [one["definition"] for one in copy["constraints"]] == [
        "PRIMARY KEY (id)",
        "CHECK ((((code)::text <> 'bad'::text) AND ((code)::text !~~ '100%'::text)))",
    ]
    assert {one["expression"] for one in copy["columns"]} == {None}
    assert (copy["sequences"], copy["foreign_keys"], copy["triggers"]) == ([], [], [])


def test_every_value_of_every_type_is_archived_as_it_is(odd_over: Workspace, db: Session) -> None:
    archive(db, odd_over)
    text = "SELECT (s.*)::text AS row FROM {} s ORDER BY id"

    assert db.rows(text.format(ARCHIVES[1])) == db.rows(text.format("public.old_jobs"))
    odd_row = db.row(text.format(ARCHIVES[1]))
    assert odd_row is not None
    for value in ("NaN", "[0:1]={1,NULL}", r"\u0000", "infinity", "00ff", "03:00:00.000001"):
        assert value in odd_row["row"]


def test_an_archive_says_what_it_is(over: Workspace, db: Session) -> None:
    found = archive(db, over)[1]
    comment = db.value(f"SELECT obj_description('{ARCHIVES[1]}'::regclass)")

    assert "Archive of public.old_jobs, made or brought up to date at 20" in comment
    assert f"by the migration shop: 12 rows with the checksum {found.measure.checksum}" in comment


def test_the_checksum_is_the_same_by_hand_in_a_session_of_its_own(
    odd_over: Workspace, db: Session, database_url: str
) -> None:
    found = archive(db, odd_over)[1]
    assert copies.__doc__ is not None
    query = copies.__doc__.partition("::\n\n")[2].replace("public.t", "public.old_jobs")
    with psycopg.connect(database_url.replace("+psycopg", ""), options="-c TimeZone=UTC") as other:
        row = other.execute(query.encode()).fetchone()

    assert row is not None
    assert (row[0], str(row[1])) == (found.measure.rows, found.measure.checksum)


@pytest.mark.parametrize("sql", ["UPDATE {} SET payload = '' WHERE id = 1", "DELETE FROM {} WHERE id = 1",
                                 "UPDATE {} SET payload = NULL WHERE id = 1"])  # fmt: skip
def test_a_damaged_archive_does_not_pass_the_test(over: Workspace, db: Session, sql: str) -> None:
    archive(db, over)
    db.run("UPDATE tracking.tasktrail_archives SET tested_at = NULL")
    db.run(sql.format(ARCHIVES[1]))
    with pytest.raises(
        MigrationError, match=r"tracking\.archived_old_jobs holds 1[12] rows with the checksum"
    ):
        try_out(db, over)

    assert [one.tested_at for one in recorded(db, over)] == [None, None]


def test_the_checksum_tells_rows_apart_that_look_alike(db: Session) -> None:
    def sum_of(*rows: str) -> Measure:
        return measure(db, f"(VALUES {', '.join(rows)})")

    assert sum_of("(1, 'a')", "(2, 'b')") == sum_of("(2, 'b')", "(1, 'a')")
    assert sum_of("(1, 'a')", "(2, 'b')") != sum_of("(1, 'b')", "(2, 'a')")
    assert sum_of("(1, 'a')", "(1, 'a')") != sum_of("(1, 'a')")
    assert sum_of("(1, '')") != sum_of("(1, NULL)")
    assert sum_of("('a', ',b')") != sum_of("('a,', 'b')")
    assert sum_of("('a,b', '')") != sum_of("('a', 'b,')")


def test_tables_without_rows_are_archived(workspace: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "TRUNCATE old_orders, old_jobs RESTART IDENTITY")
    start_syncing(workspace, db)
    cut_over(workspace, db)

    assert [one.measure for one in archive(db, workspace)] == [Measure(0, "0")] * 2


def test_archiving_again_touches_only_the_rows_that_differ(
    over: Workspace, db: Session, engine: Engine
) -> None:
    archive(db, over)
    before = versions(db)
    run_sql(
        engine,
        "UPDATE old_jobs SET payload = 'changed' WHERE id = 3; DELETE FROM old_jobs WHERE id = 4;"
        "INSERT INTO old_jobs (payload, made) VALUES ('new', now())",
    )
    found = archive(db, over)[1]
    after = versions(db)

    assert found.measure == measure(db, "public.old_jobs")
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == {3, 4, 13}
    assert found.tested_at is not None
    events = [event["what"] for event in over.journal.events(db)]
    assert events[0] == "archives brought up to date"


def test_an_altered_table_is_archived_anew(over: Workspace, db: Session, engine: Engine) -> None:
    archive(db, over)
    run_sql(engine, "ALTER TABLE old_jobs ADD extra int DEFAULT 3")
    archive(db, over)

    assert db.value(f"SELECT sum(extra) FROM {ARCHIVES[1]}") == 36


def test_a_restored_table_that_differs_is_named_with_what_differs(
    over: Workspace, db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = restoring.rebuild.create

    def with_a_mistake(session: Session, definition: dict[str, object], fill: object) -> None:
        create(session, definition, fill)  # type: ignore[arg-type]
        if definition["name"] == "old_jobs":
            session.run(f"ALTER TABLE {definition['written']} ALTER made DROP NOT NULL, ADD odd int")
            session.run(f"DELETE FROM {definition['written']} WHERE id = 1")

    monkeypatch.setattr(restoring.rebuild, "create", with_a_mistake)
    with pytest.raises(MigrationError) as wrong:
        archive(db, over)

    assert "tasktrail_restore_shop.old_jobs holds 11 rows with the checksum" in str(wrong.value)
    assert "columns: id, payload, state, made recorded, id, payload, state, made, odd found" in str(
        wrong.value
    )
    assert phase(over, db) is Phase.CUT_OVER


def test_differences_of_definitions_are_named_one_by_one() -> None:
    recorded_one = {"name": "t", "columns": [{"name": "a", "type": "text"}], "grants": [{"role": "x"}]}
    found = {"name": "t", "columns": [{"name": "a", "type": "integer"}], "grants": [{"role": "y"}]}

    assert differences(recorded_one, found) == [
        "columns.a.type: 'text' recorded, 'integer' found",
        "grants: {'role': 'x'} recorded, not found",
        "grants: {'role': 'y'} found, not recorded",
    ]
    assert differences(recorded_one, found, ignoring={"grants", "type"}) == []


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("ALTER TABLE old_jobs ENABLE ROW LEVEL SECURITY", "it has row security"),
        ("CREATE RULE quiet AS ON DELETE TO old_jobs DO ALSO NOTHING", "it has rules"),
        ("CREATE TABLE newer_jobs () INHERITS (old_jobs)", "it inherits from another table or passes on"),
        ("CREATE STATISTICS odd ON payload, state FROM old_jobs", "it has extended statistics"),
        ("ALTER TABLE old_jobs SET UNLOGGED", "it is unlogged"),
        ("ALTER TABLE old_jobs REPLICA IDENTITY FULL", "its replica identity is another"),
        ("CREATE PUBLICATION everything FOR TABLE old_jobs", "a publication names it"),
    ],
)
def test_a_table_that_could_not_be_made_again_is_not_archived(
    over: Workspace, db: Session, engine: Engine, sql: str, reason: str
) -> None:
    run_sql(engine, sql)
    with pytest.raises(MigrationError, match=rf"public\.old_jobs could not be made again as it is.*{reason}"):
        archive(db, over)

    assert phase(over, db) is Phase.CUT_OVER


def test_a_table_that_is_no_archive_is_left_alone(over: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "CREATE TABLE tracking.archived_old_jobs (mine int)")
    with pytest.raises(MigrationError, match='"archived_old_jobs" that is no archive of this migration'):
        archive(db, over)

    assert db.value("SELECT count(*) FROM tracking.archived_old_jobs") == 0


def test_an_archive_that_somebody_dropped_is_made_again(over: Workspace, db: Session, engine: Engine) -> None:
    archive(db, over)
    run_sql(engine, "DROP TABLE tracking.archived_old_jobs")

    assert [one.measure.rows for one in archive(db, over)] == [14, 12]


def test_a_killed_archive_is_finished_by_the_next(over: Workspace, db: Session, engine: Engine) -> None:
    with engine.connect() as writer, over.session("killed") as killed:
        pid = killed.connection.info.backend_pid
        writer.exec_driver_sql("CREATE TABLE tracking.archived_old_jobs ()")
        failed: list[BaseException] = []

        def work() -> None:
            try:
                archive(killed, over)
            except psycopg.Error as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %(pid)s"
        until(lambda: are_there(db)[0] and db.value(waits, pid=pid))
        db.value("SELECT pg_terminate_backend(%(pid)s)", pid=pid)
        thread.join(30)

    assert (len(failed), are_there(db), phase(over, db)) == (1, [True, False], Phase.CUT_OVER)
    with pytest.raises(GateClosed, match="old_jobs has no archive; make it with `tasktrail migrate archive`"):
        try_out(db, over)
    assert [one.measure.rows for one in archive(db, over)] == [14, 12]


def test_archiving_keeps_no_applier_waiting(over: Workspace, db: Session) -> None:
    with over.session("applier") as applier, applier.locked("shop", "old_jobs"):
        archive(db, over)

    assert db.value("SELECT pg_try_advisory_lock(%(key)s)", key=lock_key("shop", "runner"))


def test_archives_can_be_thrown_away_and_made_again(over: Workspace, db: Session) -> None:
    archive(db, over)
    undo_archive(db, over)

    assert (are_there(db), recorded(db, over), phase(over, db)) == ([False, False], [], Phase.CUT_OVER)
    with pytest.raises(WrongPhase, match="cannot throw the archives away now, the migration is cut_over"):
        undo_archive(db, over)
    archive(db, over)
    assert are_there(db) == [True, True]


def test_nothing_is_archived_before_the_cutover(syncing: Workspace, db: Session) -> None:
    with pytest.raises(WrongPhase, match="cannot archive the legacy tables now, the migration is syncing"):
        archive(db, syncing)
    with pytest.raises(WrongPhase, match="cannot restore the legacy tables into look now"):
        restore(db, syncing, "look")


def test_a_plan_that_no_longer_fits_is_refused(over: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "ALTER TABLE old_jobs ALTER payload TYPE json USING NULL")
    with pytest.raises(PlanRefused, match=r"public\.old_jobs\.payload is json"):
        archive(db, over)


def test_copies_for_a_look_keep_nobody_from_deleting(
    odd_over: Workspace, db: Session, engine: Engine
) -> None:
    archive(db, odd_over)
    made = restore(db, odd_over, "look")

    assert [one["written"] for one in made] == ["look.old_orders", "look.old_jobs"]
    run_sql(engine, "UPDATE old_jobs SET customer = NULL WHERE id < 3; DELETE FROM customers")
    assert db.value("SELECT count(customer) FROM look.old_jobs") == 2
    assert db.value("SELECT pg_get_serial_sequence('look.old_jobs', 'id')") == "look.old_jobs_id_seq"
    with pytest.raises(ConfigurationError, match="the legacy table old_orders itself belongs there"):
        restore(db, odd_over, "public")


def test_a_library_without_a_schema_of_its_own_archives_beside_the_legacy_tables(
    over: Workspace, db: Session
) -> None:
    db.run("SET search_path TO tracking, public")
    bare = replace(over, schema=None)

    assert [one.name for one in archive(db, bare)] == ARCHIVES


def test_the_checksum_does_not_depend_on_the_settings_of_the_database(
    odd_over: Workspace, db: Session, engine: Engine
) -> None:
    name = db.value("SELECT quote_ident(current_database())")
    for setting in ("TimeZone = 'Asia/Tokyo'", "DateStyle = 'SQL, DMY'", "extra_float_digits = -5",
                    "IntervalStyle = 'iso_8601'", "bytea_output = 'escape'"):  # fmt: skip
        run_sql(engine, f"ALTER DATABASE {name} SET {setting}")
    with odd_over.session("elsewhere") as other:
        archives = archive(other, odd_over)

    assert archives[1].measure == measure(db, "public.old_jobs") == measure(db, ARCHIVES[1])


def test_what_the_server_refuses_is_one_clear_line(over: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, "CREATE SCHEMA tasktrail_restore_shop")
    with pytest.raises(MigrationError) as refused:
        archive(db, over)

    assert str(refused.value) == (
        'the legacy tables cannot be made again: schema "tasktrail_restore_shop" already exists. '
        "Everything is as before"
    )
