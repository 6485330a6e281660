"""The migration of each legacy table, as functions: thin entries to the engine, for scripts and notebooks.

In production ``tasktrail migrate`` does the same step by step; see ``docs/runbooks/migrate-production.md``.
"""

from __future__ import annotations

from portfolio.legacy.plan import DAILY_UPDATES, ETF_UPDATES, PLAN, TASK_STATUS
from portfolio.models import TRACKING_SCHEMA
from tasktrail import Trail
from tasktrail.migration.account import Account
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.runner import Runner
from tasktrail.migration.workspace import Workspace


def migrate_exchange_rate_tasks(trail: Trail) -> Account:
    """Copy ``task_status``, exchange rates and the creation of ETFs alike, and follow it from then on.

    It may be called again: what is copied already is left as it is.

    Args:
        trail: where the database is.

    Returns:
        Where every legacy row is.

    Raises:
        PlanRefused: the plan does not fit the database; nothing was changed.
        ErrorBudgetExceeded: a row made its transform fail; what was copied before it is kept.
    """
    return _migrate(trail, TASK_STATUS.name)


def migrate_etf_updates(trail: Trail) -> Account:
    """Copy ``etf_updates``, and follow it from then on; see ``migrate_exchange_rate_tasks``."""
    return _migrate(trail, ETF_UPDATES.name)


def migrate_daily_updates(trail: Trail) -> Account:
    """Copy ``daily_update_tracking``, and follow it from then on; see ``migrate_exchange_rate_tasks``."""
    return _migrate(trail, DAILY_UPDATES.name)


def _migrate(trail: Trail, table: str) -> Account:
    workspace = Workspace(PLAN, trail.engines, TRACKING_SCHEMA)
    with workspace.session(f"migrate {table}") as session:
        runner = Runner(workspace, session)
        runner.plan()
        runner.expand()
        runner.sync()
        runner.backfill(Backfill(workspace, only=[table]))
        return runner.account()
