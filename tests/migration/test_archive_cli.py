"""``tasktrail migrate archive``, ``restore`` and ``drop`` as an operator uses them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tasktrail.engines import Engines
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.legacy import PLAN, run_sql
from tests.migration.test_cli import Run, copied, migrate, shop
from tests.support import SCHEMA

__all__ = ["migrate", "shop"]


@pytest.fixture
def over(migrate: Run, database_url: str) -> Run:  # the fixture of that name
    """The command line, after a cutover with a week's window."""
    copied(migrate)
    workspace = Workspace(PLAN, Engines(database_url), SCHEMA)
    with workspace.session("test") as db:
        for phase in (Phase.VERIFIED, Phase.PARALLEL, Phase.CUT_OVER):
            with db.transaction():
                workspace.journal.move(db, phase, step="test", window=timedelta(days=7))
    return migrate


def end_window(engine: Engine) -> None:
    run_sql(engine, "UPDATE tracking.tasktrail_migrations SET window_ends_at = now()")


def test_from_the_cutover_to_the_drop_and_back(over: Run, engine: Engine) -> None:
    archived = over("archive")
    assert (archived.code, archived.err) == (0, "")
    assert "tracking.archived_old_orders holds 14 rows with the checksum " in archived.out
    assert archived.out.endswith("made again from them for a test, and are the same\n")
    assert over("archive").code == 0
    assert over("status").out.startswith("archived; go on with `tasktrail migrate drop --yes`")

    closed = over("drop", "--yes")
    assert closed.code == 2
    assert "the gate to drop the legacy tables is closed: the window in which a rollback" in closed.err
    shown = over("drop")
    assert (shown.code, shown.out.count("the gate is closed: the window")) == (2, 1)
    assert over("drop", "--check").code == 2

    end_window(engine)
    shown = over("drop")
    assert shown.code == 2
    assert "the gate is open\nto be dropped: public.old_orders; tracking.archived_old_orders" in shown.out
    assert shown.out.endswith("nothing was changed; drop them with `tasktrail migrate drop --yes`\n")
    assert over("drop", "--check").code == 0
    assert over("drop", "--check", "--yes").code == 0
    assert over("account").code == 0

    dropped = over("drop", "--yes")
    assert (dropped.code, dropped.err) == (0, "")
    assert "public.old_jobs is gone; tracking.archived_old_jobs holds 12 rows" in dropped.out
    for words in (("drop",), ("drop", "--yes"), ("drop", "--check")):
        assert over(*words).out == "they were dropped already\n"

    assert over("status").out.startswith("dropped; go on with")
    account = over("account")
    assert account.code == 0
    assert "old_jobs: 12 rows = 9 migrated + 0 consolidated + 3 quarantined + 0 archived" in account.out
    assert "bad_day: 2 rows" in over("quarantine", "list").out
    assert over("quarantine", "show", "old_orders", "7").code == 0
    for words in (("plan",), ("sync",), ("quarantine", "redrive", "old_orders"), ("backfill", "--undo")):
        assert over(*words).complains("the migration is dropped; go on with `tasktrail migrate "), words
    assert over("archive", "--undo").complains(
        "all there is of the legacy rows", "`tasktrail migrate restore`"
    )

    restored = over("restore")
    assert (restored.code, restored.err) == (0, "")
    assert "public.old_jobs is there again, with 12 rows" in restored.out
    assert over("status").out.startswith("cut_over; go on with `tasktrail migrate archive`")
    assert over("restore").complains("cannot restore the legacy tables now, the migration is cut_over")


def test_copies_for_a_look_are_made_where_they_are_asked_for(over: Run) -> None:
    assert over("restore", "--into", "look").complains("go on with `tasktrail migrate archive`")
    over("archive")
    made = over("restore", "--into", "look")

    assert made.out.splitlines()[:2] == ["look.old_orders is there", "look.old_jobs is there"]
    assert over("restore", "--into", "look").complains(
        "there is a table look.old_orders, look.old_jobs already"
    )
    assert over("restore", "--into", "public").complains("name another schema")


def test_archives_are_thrown_away(over: Run) -> None:
    over("archive")

    assert over("archive", "--undo").out == "the archives are gone\n"
    told = "the migration is cut_over, not archived; go on with `tasktrail migrate archive`"
    assert over("drop").out == f"the gate is closed: {told}\n"


def test_what_could_not_be_restored_as_it_was_is_said_with_exit_code_2(over: Run, engine: Engine) -> None:
    run_sql(
        engine,
        "CREATE TABLE kinds (kind varchar PRIMARY KEY); "
        "INSERT INTO kinds SELECT DISTINCT kind FROM old_orders WHERE kind IS NOT NULL;"
        "ALTER TABLE old_orders ADD CONSTRAINT of_kind FOREIGN KEY (kind) REFERENCES kinds",
    )
    over("archive")
    end_window(engine)
    over("drop", "--yes")
    run_sql(engine, "DELETE FROM kinds WHERE kind = 'ping'")
    restored = over("restore")

    assert restored.code == 2
    assert (
        "not as it was: the foreign key of_kind of public.old_orders holds for new rows only" in restored.out
    )
