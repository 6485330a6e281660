"""The server restarts, connections are cut: commands say so and how to go on, and the follower survives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, NullPool, create_engine

from conftest import MakeDatabase
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.engines import Engines
from tasktrail.errors import DatabaseUnavailable, MigrationBusy, PlanRefused
from tasktrail.migration import sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.copier import Progress
from tasktrail.migration.follower import keep_following
from tasktrail.migration.session import Session
from tasktrail.migration.workspace import Workspace
from tasktrail.settings import sqlalchemy_url
from tests.migration.conftest import start_syncing
from tests.migration.legacy import PLAN, create_legacy, run_sql
from tests.migration.test_backfill import MANY, final, verdicts
from tests.support import SCHEMA, create_tables
from tests.waiting import until

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name LIKE %(name)s"
)
CUTS = 10


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that these tests may restart; it survives that, so commits are on disk."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("own-postgres"))
    server.start()
    yield server
    server.stop("immediate")


def _has_new_database(url: str) -> bool:
    """Make the database anew; a server that a test before has crashed may just be ending its connections."""
    try:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP DATABASE IF EXISTS fragile WITH (FORCE)")
            admin.execute("CREATE DATABASE fragile")
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def fragile(own_postgres: EmbeddedPostgres) -> Iterator[Workspace]:
    """A migration in the phase ``syncing`` on that server."""
    until(lambda: _has_new_database(own_postgres.start()))
    url = sqlalchemy_url(own_postgres.url).set(database="fragile")
    engine = create_engine(url, poolclass=NullPool)
    create_tables(engine)
    create_legacy(engine)
    run_sql(engine, MANY)
    workspace = Workspace(PLAN, Engines(url.render_as_string(hide_password=False)), SCHEMA)
    with workspace.session("test") as db:
        start_syncing(workspace, db)
    yield workspace
    workspace.engines.dispose()


def copied_undisturbed(make_database: MakeDatabase, library_template: str) -> list[Any]:
    """Return what an undisturbed copy of the same rows ends in."""
    engine = create_engine(make_database(library_template), poolclass=NullPool)
    create_legacy(engine)
    run_sql(engine, MANY)
    url = engine.url.render_as_string(hide_password=False)
    workspace = Workspace(PLAN, Engines(url), SCHEMA)
    with workspace.session("test") as db:
        start_syncing(workspace, db)
        Backfill(workspace).run(db)
        return final(db)


def test_a_copy_in_which_the_server_crashes_goes_on_where_it_was(
    fragile: Workspace, own_postgres: EmbeddedPostgres, make_database: MakeDatabase, library_template: str
) -> None:
    crashes = iter(range(500, 3000, 1000))

    def crash(progress: Progress) -> None:
        nonlocal due
        if progress.done >= due:
            due = next(crashes, 10**9)
            own_postgres.restart("immediate")

    due, interruptions = next(crashes), 0
    while True:
        try:
            with fragile.session("copy") as session:
                Backfill(fragile, chunk_size=100, report=crash).run(session)
                break
        except DatabaseUnavailable:
            interruptions += 1
    with fragile.session("test") as db:
        assert interruptions == 3
        assert final(db) == copied_undisturbed(make_database, library_template)
        assert counted_rows(db) == {"old_jobs": 12, "old_orders": 3014}


def counted_rows(db: Session) -> dict[str, int]:
    rows = db.rows("SELECT table_name, rows_done FROM tracking.tasktrail_migration_tables ORDER BY 1")
    return {row["table_name"]: row["rows_done"] for row in rows}


def test_a_copy_whose_connection_is_cut_at_random_moments_ends_in_the_same_tables(
    workspace: Workspace, db: Session, engine: Engine, make_database: MakeDatabase, library_template: str
) -> None:
    run_sql(engine, MANY)
    start_syncing(workspace, db)
    dice, interruptions = Random(3), 0
    done = False
    while not done:
        cutter = threading.Timer(
            dice.uniform(0.0, 0.2), lambda: cut(workspace, "tasktrail migrate backfill%%")
        )
        if interruptions < CUTS:
            cutter.start()
        try:
            with workspace.session("migrate backfill") as session:
                Backfill(workspace, chunk_size=5).run(session)
                done = True
        except DatabaseUnavailable:
            interruptions += 1
        finally:
            cutter.cancel()
            if cutter.ident:
                cutter.join()

    assert interruptions == CUTS
    assert final(db) == copied_undisturbed(make_database, library_template)
    assert counted_rows(db) == {"old_jobs": 12, "old_orders": 3014}


def cut(workspace: Workspace, name: str) -> int:
    with workspace.session("operator") as operator:
        return len(operator.rows(CUT, name=name))


@contextmanager
def following(workspace: Workspace, **more: Any) -> Iterator[list[BaseException]]:
    """Let a follower run on a thread of its own; what it raised is in the list."""
    stop, failures = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            keep_following(workspace, stop, interval=0.01, share=0.5, **more)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield failures
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def is_drained(workspace: Workspace) -> Callable[[], bool]:
    def look() -> bool:
        with workspace.session("test") as session:
            return sync.lag(session, workspace).entries == 0

    return look


def test_the_follower_survives_a_crash_of_the_server_and_misses_nothing(
    fragile: Workspace, own_postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tasktrail")
    with fragile.session("copy") as session:
        Backfill(fragile).run(session)
    with following(fragile) as failures:
        for note in ("first", "second", "third"):
            own_postgres.stop("immediate")
            own_postgres.start()
            with fragile.session("old worker") as writer:
                writer.run("UPDATE old_orders SET note = %(note)s WHERE id %% 100 = 0", note=note)
            until(is_drained(fragile), seconds=60)
    with fragile.session("test") as db:
        assert failures == []
        assert [verdict.differing for verdict in verdicts(fragile, db)] == [0, 0, 0]
        assert db.value("SELECT count(*) FROM tracking.order_tracking WHERE error_message = 'third'") > 5
    assert "following was interrupted: the database at" in caplog.text
    assert "trying again in 0.5 s" in caplog.text
    assert "following again; " in caplog.text


def test_the_follower_goes_on_when_its_connection_was_cut(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    Backfill(syncing).run(db)
    seen: list[int] = []
    with following(syncing, report=lambda applied, _: seen.append(applied)) as failures:
        for note in ("first", "second", "third"):
            before = len(seen)
            until(lambda before=before: len(seen) > before)
            assert cut(syncing, "tasktrail migrate sync --follow") == 1
            run_sql(engine, f"UPDATE old_orders SET note = '{note}'")
            until(is_drained(syncing), seconds=30)

    assert failures == []
    assert sum(seen) == 3 * 14
    assert [verdict.differing for verdict in verdicts(syncing, db)] == [0, 0, 0]


def test_what_does_not_go_by_itself_ends_the_follower(
    syncing: Workspace, db: Session, engine: Engine
) -> None:
    seen: list[int] = []
    with following(syncing, report=lambda applied, _: seen.append(applied)) as failures:
        until(lambda: seen)
        run_sql(engine, "ALTER TABLE old_orders RENAME touched TO moved; UPDATE old_orders SET note = 'x'")
        until(lambda: failures, seconds=30)

    assert isinstance(failures[0], PlanRefused | psycopg.errors.UndefinedColumn)


def test_a_second_follower_is_refused(syncing: Workspace) -> None:
    seen: list[int] = []
    with following(syncing, report=lambda applied, _: seen.append(applied)):
        until(lambda: seen)
        with pytest.raises(MigrationBusy, match="cannot follow changes while somebody else does"):
            keep_following(syncing, threading.Event())
