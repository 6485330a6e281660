"""The legacy tables of the portfolio: archived, dropped, and made again with every dirty row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from sqlalchemy import Engine

from portfolio.legacy.generate import generate
from portfolio.legacy.plan import PLAN
from portfolio.models import TRACKING_SCHEMA
from tasktrail.engines import Engines
from tasktrail.migration.archive import archive
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.drop import drop
from tasktrail.migration.restore import restore_dropped
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.odd import dumped

TABLES = ("public.task_status", "public.etf_updates", "public.daily_update_tracking")


@pytest.fixture
def workspace(engine: Engine, database_url: str) -> Workspace:
    generate(engine, rows=2_000, dirty=0.1, seed=9, until=date(2026, 11, 1))
    return Workspace(PLAN, Engines(database_url), TRACKING_SCHEMA)


@pytest.fixture
def session(workspace: Workspace) -> Iterator[Session]:
    with workspace.session("test") as session:
        yield session


def test_the_three_tables_are_archived_dropped_and_restored_as_they_were(
    workspace: Workspace, session: Session, engine: Engine
) -> None:
    runner = Runner(workspace, session)
    runner.plan()
    runner.expand()
    runner.sync()
    runner.backfill(Backfill(workspace))
    runner.verify()
    for phase in (Phase.PARALLEL, Phase.CUT_OVER):
        with session.transaction():
            workspace.journal.move(session, phase, step="test")
    before = dumped(engine, *TABLES)
    archives = archive(session, workspace)
    account = runner.account()
    drop(session, workspace)

    assert [one.name for one in archives] == [
        "tracking.archived_task_status",
        "tracking.archived_etf_updates",
        "tracking.archived_daily_update_tracking",
    ]
    assert sum(one.measure.rows for one in archives) == 2_000
    assert runner.account() == account
    assert account.is_balanced
    assert restore_dropped(session, workspace) == []
    assert dumped(engine, *TABLES) == before
