"""What a migration may meet around it: one clear line with the command to go on, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url

from tasktrail.cli.app import app
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.errors import StepInterrupted
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.interruption import explained
from tasktrail.migration.session import Session
from tasktrail.migration.workspace import Workspace
from tasktrail.settings import sqlalchemy_url
from tests.commands import Outcome, run_here
from tests.migration.conftest import start_syncing
from tests.migration.legacy import create_legacy, run_sql
from tests.migration.test_backfill import MANY, final, verdicts
from tests.migration.test_cli import SHOP
from tests.support import create_tables

Run = Callable[..., Outcome]


@pytest.fixture
def migrate(project_folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """``tasktrail migrate``; with ``url`` it goes to another database or as another role."""
    (project_folder / "surrounded_shop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TASKTRAIL_APP", "surrounded_shop:trail")
    monkeypatch.setenv("TASKTRAIL_PLAN", "tests.migration.legacy:PLAN")

    def run(*words: str, url: str = database_url) -> Outcome:
        sys.modules.pop("surrounded_shop", None)
        monkeypatch.setenv("TASKTRAIL_DATABASE_URL", url)
        return run_here(app, "migrate", *words)

    yield run
    sys.modules.pop("surrounded_shop", None)


@contextmanager
def small_disk(size: str, owner: int) -> Iterator[Path]:
    """Mount a small file system that belongs to a user, where root may do that."""
    with TemporaryDirectory(prefix="tasktrail-disk-") as name:
        Path(name).chmod(0o755)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700,uid={owner}", "tmpfs", name]
        if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
            pytest.skip("only root may mount a file system to fill, and not in every container")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@contextmanager
def on_small_disk(engine: Engine, tables: list[str], size: str) -> Iterator[Path]:
    """Have tables lie on a disk that is nearly full; they are moved back in the end."""
    with ExitStack() as stack:
        db = stack.enter_context(engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
        data = Path(db.exec_driver_sql("SHOW data_directory").scalar())
        folder = stack.enter_context(small_disk(size, data.stat().st_uid))
        db.exec_driver_sql(f"CREATE TABLESPACE small LOCATION '{folder}'")
        for table in tables:
            db.exec_driver_sql(f"ALTER TABLE {table} SET TABLESPACE small")
        try:
            yield folder
        finally:
            for table in tables:
                db.exec_driver_sql(f"ALTER TABLE {table} SET TABLESPACE pg_default")
            db.exec_driver_sql("CHECKPOINT")
            db.exec_driver_sql("DROP TABLESPACE small")


def test_a_full_disk_ends_the_copy_with_the_command_to_go_on_and_with_room_it_goes_on(
    workspace: Workspace, db: Session, engine: Engine, migrate: Run
) -> None:
    run_sql(engine, MANY)
    start_syncing(workspace, db)
    db.run("UPDATE tracking.tasktrail_migrations SET fingerprint = %(now)s", now=workspace.plan.fingerprint)
    with on_small_disk(engine, ["tracking.order_tracking"], "256k") as folder:
        full = migrate("backfill", "--chunk-size", "100")
        assert full.complains(
            "No space left on device", "the disk of the database is full; make room on it",
            "What was committed before is kept", "go on with `tasktrail migrate backfill`",
        )  # fmt: skip
        done = db.value(
            "SELECT rows_done FROM tracking.tasktrail_migration_tables WHERE table_name = 'old_orders'"
        )
        assert 0 < done < 3014
        assert (
            db.value("SELECT count(*) FROM tracking.tasktrail_ledger WHERE table_name = 'old_orders'") == done
        )
        assert migrate("account").code == 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        assert migrate("backfill", "--chunk-size", "100").code == 0

    assert [verdict.differing for verdict in verdicts(workspace, db)] == [0, 0, 0]


def test_old_writers_go_on_when_there_is_no_room_to_note_their_changes_and_these_are_found_later(
    syncing: Workspace, db: Session, engine: Engine, migrate: Run
) -> None:
    Backfill(syncing).run(db)
    with on_small_disk(engine, ["tracking.tasktrail_changes"], "64k"):
        for number in range(60):
            run_sql(engine, f"UPDATE old_orders SET note = 'change {number}'")
        noted = db.value("SELECT count(*) FROM tracking.tasktrail_changes")
        assert noted < 60 * 14
    assert db.value("SELECT count(*) FROM old_orders WHERE note = 'change 59'") == 14
    db.run("UPDATE tracking.tasktrail_migrations SET fingerprint = %(now)s", now=syncing.plan.fingerprint)
    assert migrate("sync").code == 0
    assert migrate("backfill").code == 0

    assert [verdict.differing for verdict in verdicts(syncing, db)] == [0, 0, 0]


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("primary"), options={"fsync": "off"})
    server.start()
    yield server
    server.stop("immediate")


@contextmanager
def standby_of(primary: EmbeddedPostgres, folder: Path) -> Iterator[EmbeddedPostgres]:
    """Make a hot standby, as an operator does, with pg_basebackup."""
    standby = EmbeddedPostgres(folder, options={"fsync": "off"})
    folder.mkdir(parents=True)
    command = [
        str(primary._programs / "pg_basebackup"),
        "-d",
        primary.url,
        "-D",
        str(standby.data),
        "-R",
        "-c",
        "fast",
    ]
    subprocess.run(command, check=True, capture_output=True)
    if os.geteuid() == 0:
        owner = primary.data.stat()
        for path in (standby.data, *standby.data.rglob("*")):
            shutil.chown(path, owner.st_uid, owner.st_gid)
    standby.start()
    try:
        yield standby
    finally:
        standby.stop("immediate")


def test_a_replica_is_refused_with_the_name_of_the_setting_and_nothing_is_written(
    primary: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory, migrate: Run
) -> None:
    engine = create_engine(sqlalchemy_url(primary.url))
    create_tables(engine)
    create_legacy(engine)
    assert migrate("plan", url=primary.url).code == 0
    with standby_of(primary, tmp_path_factory.mktemp("replica") / "standby") as standby:
        for step in ("plan", "expand", "sync", "backfill", "verify"):
            refused = migrate(step, url=standby.url)
            assert refused.code == 1
            assert refused.err.count("\n") == 1, refused
            assert "replica" in refused.err or "go on with `tasktrail migrate" in refused.err, refused
        assert migrate("plan", url=standby.url).complains(
            "the server is a replica; name the primary in TASKTRAIL_DATABASE_URL"
        )
        assert migrate("expand", url=primary.url).code == 0
    engine.dispose()


def test_a_server_that_takes_no_writes_is_named_as_the_reason(migrate: Run, engine: Engine) -> None:
    create_legacy(engine)
    run_sql(
        engine,
        "ALTER DATABASE CURRENT SET default_transaction_read_only = on".replace(
            "CURRENT", f'"{engine.url.database}"'
        ),
    )

    assert migrate("plan").complains("this server takes no writes", "go on with `tasktrail migrate plan`")


@pytest.fixture
def poor(engine: Engine, database_url: str) -> Iterator[str]:
    """The URL of the database for a role that may do nothing but connect."""
    create_legacy(engine)
    run_sql(engine, "CREATE ROLE poor LOGIN")
    yield make_url(database_url).set(username="poor").render_as_string(hide_password=False)
    run_sql(engine, "DROP OWNED BY poor; DROP ROLE poor")


SCHEMA_RIGHTS = "GRANT USAGE, CREATE ON SCHEMA tracking TO poor;"
TABLE_RIGHTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tracking TO poor;"
OWNER_RIGHTS = "ALTER TABLE old_orders OWNER TO poor; ALTER TABLE old_jobs OWNER TO poor;"
NEW_OWNER_RIGHTS = (
    "ALTER TABLE tracking.order_tracking OWNER TO poor; ALTER TABLE tracking.job_tracking OWNER TO poor;"
)
ALL_RIGHTS = (
    OWNER_RIGHTS
    + SCHEMA_RIGHTS
    + TABLE_RIGHTS
    + NEW_OWNER_RIGHTS
    + "GRANT CREATE ON DATABASE {database} TO poor"
)


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ("", "permission denied for schema tracking"),
        (SCHEMA_RIGHTS + TABLE_RIGHTS, "may not read public.old_orders: GRANT SELECT"),
        (
            SCHEMA_RIGHTS + TABLE_RIGHTS + "GRANT SELECT, TRIGGER ON old_orders, old_jobs TO poor",
            "does not own public.old_orders, which putting triggers on it takes",
        ),
        (OWNER_RIGHTS + SCHEMA_RIGHTS + TABLE_RIGHTS,
         "does not own tracking.job_tracking, which putting triggers on it takes"),
        (OWNER_RIGHTS + SCHEMA_RIGHTS + TABLE_RIGHTS + NEW_OWNER_RIGHTS,
         "may make no schema, in which archives are restored for a test: GRANT CREATE ON the database"),
        (OWNER_RIGHTS + SCHEMA_RIGHTS + "GRANT SELECT ON ALL TABLES IN SCHEMA tracking TO poor",
         "may not write to tracking.tasktrail_ledger"),
        (OWNER_RIGHTS + TABLE_RIGHTS + "GRANT USAGE ON SCHEMA tracking TO poor",
         "may create nothing in the schema tracking: GRANT CREATE"),
    ],
)  # fmt: skip
def test_a_role_that_lacks_a_right_is_told_which_before_anything_is_done(
    migrate: Run, engine: Engine, poor: str, rights: str, missing: str
) -> None:
    if rights:
        run_sql(engine, rights)
    assert migrate("plan", url=poor).complains(missing)
    with engine.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM tracking.tasktrail_migrations").scalar() == 0


def test_with_the_rights_that_are_asked_for_a_role_can_do_every_step(
    migrate: Run, engine: Engine, poor: str
) -> None:
    run_sql(engine, ALL_RIGHTS.format(database=engine.url.database))
    for step in ("plan", "expand", "sync", "backfill", "verify"):
        outcome = migrate(step, url=poor)
        assert outcome.code == 0, outcome
    run_sql(engine, "UPDATE tracking.tasktrail_raw SET accepted_at = now()")
    cutover = "cutover --yes --clean-passes 0 --window 0s"
    for words in ("parallel --window 0s", cutover, "rollback --yes", cutover, "archive", "drop --yes"):
        outcome = migrate(*words.split(), url=poor)
        assert outcome.code == 0, outcome


def test_a_right_that_is_lost_under_way_is_named_with_the_command_to_go_on(
    migrate: Run, engine: Engine, poor: str
) -> None:
    run_sql(engine, ALL_RIGHTS.format(database=engine.url.database))
    for step in ("plan", "expand", "sync"):
        assert migrate(step, url=poor).code == 0
    run_sql(engine, "REVOKE EXECUTE ON FUNCTION tracking.tasktrail_jsonb(json) FROM PUBLIC")

    assert migrate("backfill", url=poor).complains("permission denied for function tasktrail_jsonb")


def test_limits_that_a_role_has_for_other_work_do_not_end_a_step(
    workspace: Workspace, engine: Engine
) -> None:
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        run_sql(engine, f"ALTER DATABASE {engine.url.database} SET {limit} = '10s'")
    with workspace.session("test") as session:
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert session.value(f"SHOW {limit}") == "0"


@pytest.fixture
def half_copied(migrate: Run, engine: Engine) -> Engine:
    """A migration whose first table is copied, and whose second is not."""
    create_legacy(engine)
    for words in (["plan"], ["expand"], ["sync"], ["backfill", "--table", "old_orders"]):
        assert migrate(*words).code == 0
    return engine


def test_a_legacy_table_that_is_dropped_under_way_is_named(migrate: Run, half_copied: Engine) -> None:
    run_sql(half_copied, "DROP TABLE old_jobs CASCADE")
    for step in ("backfill", "sync", "account"):
        assert migrate(step).complains("the legacy table public.old_jobs is missing")

    status = migrate("status")
    assert status.code == 2
    assert "not as it should be: the legacy table public.old_jobs is missing" in status.out


def test_a_legacy_table_that_is_altered_under_way_is_named_and_altered_back_it_goes_on(
    migrate: Run, half_copied: Engine
) -> None:
    run_sql(half_copied, "ALTER TABLE old_jobs RENAME payload TO content")
    assert migrate("backfill").complains("public.old_jobs lacks the column payload")
    run_sql(half_copied, "ALTER TABLE old_jobs RENAME content TO payload")

    assert migrate("backfill").code == 0
    assert migrate("verify").code == 0


def test_a_column_that_the_old_system_adds_under_way_costs_a_second_look_at_its_rows_and_nothing_else(
    migrate: Run, half_copied: Engine
) -> None:
    assert migrate("backfill").code == 0
    run_sql(half_copied, "ALTER TABLE old_orders ADD COLUMN extra int DEFAULT 7")
    assert migrate("verify").code == 2
    assert migrate("backfill").code == 0

    assert migrate("verify").code == 0


def test_a_table_that_changes_within_a_step_ends_it_with_the_command_that_says_what_does_not_fit(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    def drop(_: object) -> None:
        run_sql(engine, "ALTER TABLE old_orders DROP COLUMN touched CASCADE")

    with (
        pytest.raises(
            StepInterrupted, match="a column was dropped or renamed under way; `tasktrail migrate plan`"
        ),
        explained("tasktrail migrate backfill"),
    ):
        Backfill(syncing, chunk_size=4, report=drop, connections=1).run(db)
    assert len(final(db)[2]) == 4


def test_an_index_whose_building_was_interrupted_is_built_again_by_the_same_step(
    workspace: Workspace, db: Session, engine: Engine, migrate: Run
) -> None:
    run_sql(engine, "ALTER TABLE tracking.order_tracking DROP CONSTRAINT uq_order")
    twice = "INSERT INTO tracking.order_tracking (day, currency) VALUES ('2030-01-01', 'EUR')"
    run_sql(engine, f"{twice}; {twice}")
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.run("CREATE UNIQUE INDEX CONCURRENTLY uq_order ON tracking.order_tracking (day, currency)")
    run_sql(engine, "DELETE FROM tracking.order_tracking")
    planned = migrate("plan")
    assert planned.code == 0
    assert "the index tracking.uq_order is INVALID, expanding builds it again" in planned.out
    for step in ("expand", "sync", "backfill", "verify"):
        assert migrate(step).code == 0, step

    assert (
        db.value(
            "SELECT indisvalid FROM pg_index WHERE indrelid = 'tracking.order_tracking'::regclass AND "
            "indisunique AND NOT indisprimary"
        )
        is True
    )
