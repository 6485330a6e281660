"""The migration plan of the three legacy tables: ``docs/reference/legacy-mapping.md``, in SQL.

The same rules stand a second time in ``portfolio.legacy.twins``, written from that page and not from here.
"""

from __future__ import annotations

from typing import Final

from portfolio.legacy.plan.daily import DAILY_UPDATES
from portfolio.legacy.plan.etf_updates import ETF_UPDATES
from portfolio.legacy.plan.known import KNOWN
from portfolio.legacy.plan.task_status import TASK_STATUS
from tasktrail.migration.plan import MigrationPlan

__all__ = ["DAILY_UPDATES", "ETF_UPDATES", "PLAN", "TASK_STATUS"]

PLAN: Final = MigrationPlan(name="portfolio", tables=(TASK_STATUS, ETF_UPDATES, DAILY_UPDATES), known=KNOWN)
"""What ``tasktrail --app portfolio.worker:app migrate`` works with."""
