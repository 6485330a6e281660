"""A migration in its parallel run, for the tests of comparison and drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from tasktrail.migration.backfill import Backfill
from tasktrail.migration.difference import Difference
from tasktrail.migration.numbering import FIRST_NEW_ID
from tasktrail.migration.parallel import begin
from tasktrail.migration.plan import KnownDifference, MigrationPlan, Route
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.conftest import start_syncing
from tests.migration.legacy import JOB_TABLE, ORDER_TABLE, ORDERS

COMPARED: Mapping[str, timedelta | None] = {
    "status": None,
    "tags": None,
    "attempts": None,
    "completed_at": timedelta(hours=1),
}
ORDERS_PAIRED: Route = replace(ORDERS, compared=COMPARED)
JOBS_PAIRED: Route = replace(JOB_TABLE.routes[0], paired_by=("payload",))
PAIRED = MigrationPlan(
    name="shop",
    tables=(replace(ORDER_TABLE, routes=(ORDERS_PAIRED,)), replace(JOB_TABLE, routes=(JOBS_PAIRED,))),
)


def start_parallel(workspace: Workspace, db: Session, plan: MigrationPlan = PAIRED) -> Workspace:
    """Go through the phases until both systems run."""
    workspace = replace(workspace, plan=plan)
    start_syncing(workspace, db)
    Backfill(workspace).run(db)
    db.run(
        "SELECT setval(pg_get_serial_sequence('tracking.job_tracking', 'id'), %(first)s)", first=FIRST_NEW_ID
    )
    with db.transaction():
        workspace.journal.move(db, Phase.VERIFIED, step="verify")
    begin(db, workspace)
    return workspace


def knowing(workspace: Workspace, *known: KnownDifference) -> Workspace:
    """Return the same with known differences in the plan."""
    return replace(workspace, plan=replace(workspace.plan, known=known))


def named(difference: Difference) -> tuple[str, str, str, str]:
    """Return what tells a difference from others."""
    return (difference.way, difference.key, difference.what, difference.column)
