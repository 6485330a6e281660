"""The archives of the legacy tables: faithful, tested, brought up to date; and what they are restored to."""

from __future__ import annotations

import pytest

from tasktrail.migration.archive import archive
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.conftest import cut_over


@pytest.fixture
def over(syncing: Workspace, db: Session) -> Workspace:
    """The migration after its cutover."""
    cut_over(syncing, db)
    return syncing


def test_the_archives_hold_the_rows_and_were_tested(over: Workspace, db: Session) -> None:
    archives = archive(db, over)

    assert [one.name for one in archives] == ["tracking.archived_old_orders", "tracking.archived_old_jobs"]
    assert [one.measure.rows for one in archives] == [14, 12]
    assert all(one.tested_at for one in archives)
    assert over.journal.require(db, "look").phase is Phase.ARCHIVED
