"""The frozen legacy tables are those that Alembic's revision 0001 makes, and those of the specification."""

from __future__ import annotations

from apps.portfolio.tests.catalog import catalog
from sqlalchemy import Engine

from portfolio.database import upgrade
from portfolio.legacy.tables import LEGACY, MIGRATED


def test_the_frozen_tables_are_those_of_revision_0001(bare_engine: Engine) -> None:
    LEGACY.create_all(bare_engine)
    frozen = catalog(bare_engine)
    LEGACY.drop_all(bare_engine)
    upgrade(bare_engine, "0001")

    assert frozen == catalog(bare_engine)
    assert len([name for name in frozen if ": column " in name]) == 8 + 5 + 12 + 5


def test_the_tables_that_are_left_behind_are_three() -> None:
    assert [table.name for table in MIGRATED] == ["task_status", "etf_updates", "daily_update_tracking"]
