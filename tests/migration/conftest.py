"""A legacy system in each test's database, and a migration of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tasktrail.engines import Engines
from tasktrail.migration import sync
from tasktrail.migration.account import create_view
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.plan import MigrationPlan, TableMigration
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.legacy import PLAN, create_legacy
from tests.support import SCHEMA


@pytest.fixture
def workspace(engine: Engine, database_url: str) -> Workspace:
    """The plan of the tests on a database with the legacy rows."""
    create_legacy(engine)
    return Workspace(PLAN, Engines(database_url), SCHEMA)


@pytest.fixture
def db(workspace: Workspace) -> Iterator[Session]:
    """A session of the migration's own."""
    with workspace.session("test") as session:
        yield session


@pytest.fixture
def syncing(workspace: Workspace, db: Session) -> Workspace:
    """The migration in the phase in which triggers are on and nothing is copied."""
    start_syncing(workspace, db)
    return workspace


def start_syncing(workspace: Workspace, db: Session) -> None:
    """Go through the first phases."""
    workspace.journal.begin(db)
    with db.transaction():
        workspace.journal.move(db, Phase.EXPANDED, step="expand")
    stagings = workspace.stagings(db)
    for staging in stagings:
        sync.install(db, workspace, staging)
    create_view(db, workspace, stagings)
    with db.transaction():
        workspace.journal.move(db, Phase.SYNCING, step="sync")


def with_tables(workspace: Workspace, *tables: TableMigration) -> Workspace:
    """Return the same with other tables in the plan."""
    return replace(workspace, plan=MigrationPlan(name=PLAN.name, tables=tables))


def cut_over(workspace: Workspace, db: Session, window: timedelta | None = None) -> None:
    """Copy the rows, and make the new tables the truth, as the cutover does as far as the phases go."""
    Backfill(workspace).run(db)
    for phase in (Phase.VERIFIED, Phase.PARALLEL, Phase.CUT_OVER):
        with db.transaction():
            workspace.journal.move(db, phase, step="test", window=window)
