"""The legacy table ``task_status``."""

from __future__ import annotations

from typing import Final

from portfolio.legacy.plan.creation import ETF_CREATION
from portfolio.legacy.plan.rates import EXCHANGE_RATES
from portfolio.legacy.plan.standard import INTEGER, TEXT, TIMESTAMP
from portfolio.legacy.twins import task_status_twin
from tasktrail.migration.expressions import word
from tasktrail.migration.plan import TableMigration

TASK_STATUS: Final = TableMigration(
    name="task_status",
    source="public.task_status",
    key=("id",),
    source_columns={
        "id": INTEGER,
        "task_type": TEXT,
        "status": TEXT,
        "resource_id": INTEGER,
        "error": TEXT,
        "task_metadata": ("jsonb", "json", "text"),
        "created_at": TIMESTAMP,
        "updated_at": TIMESTAMP,
    },
    kind=word("s.task_type"),
    archived={
        "portfolio_recalculation": "archived_portfolio_recalculation",
        "cache_warmup": "archived_cache_warmup",
        "csv_import": "archived_csv_import",
    },
    otherwise=task_status_twin,
    routes=(EXCHANGE_RATES, ETF_CREATION),
)
