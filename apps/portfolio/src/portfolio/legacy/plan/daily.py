"""The legacy table ``daily_update_tracking``."""

from __future__ import annotations

from typing import Final

from portfolio.legacy.plan.standard import TEXT, day_out_of_range
from portfolio.legacy.twins import daily_update_twin
from portfolio.models import TRACKING_SCHEMA
from tasktrail.migration.expressions import utc
from tasktrail.migration.plan import (
    Refusal,
    Reverse,
    Route,
    TableMigration,
)

NO_DATA: Final = "'attempted before the migration, no data found'"
MIDNIGHT: Final = utc("s.date::timestamp")

DAILY_UPDATES: Final = TableMigration(
    name="daily_update_tracking",
    source="public.daily_update_tracking",
    key=("date", "update_type"),
    source_columns={
        "date": ("date",),
        "update_type": ("character varying(50)", "character varying", "text"),
        "attempted": ("boolean",),
        "data_found": ("boolean",),
        "notes": TEXT,
    },
    kind="CASE WHEN s.update_type LIKE 'etf\\_prices\\_%' THEN 'etf_prices_*' ELSE s.update_type END",
    routes=(
        Route(
            name="daily_updates",
            target=f"{TRACKING_SCHEMA}.daily_update_tracking",
            domain="daily_update",
            key=("update_date", "update_type"),
            steps=(
                {
                    "new_status": "CASE WHEN s.data_found THEN 'COMPLETED' WHEN s.attempted THEN 'FAILED' "
                    "ELSE 'PENDING' END"
                },
            ),
            refusals=(
                Refusal("date_missing", "s.date IS NULL"),
                Refusal("date_out_of_range", day_out_of_range("date")),
                Refusal("update_type_too_long", "char_length(s.update_type) > 50"),
                Refusal(
                    "unknown_update_type",
                    "s.update_type IS NULL OR s.update_type NOT IN ('exchange_rates', 'etf_prices') "
                    "AND NOT (starts_with(s.update_type, 'etf_prices_') AND char_length(s.update_type) > 11)",
                ),
            ),
            columns={
                "update_date": "s.date",
                "update_type": "s.update_type",
                "data_found": "CASE new_status WHEN 'COMPLETED' THEN TRUE WHEN 'FAILED' THEN FALSE END",
                "notes": "s.notes",
                "status": "new_status",
                "error_message": f"CASE WHEN new_status = 'FAILED' THEN {NO_DATA} END",
                "attempts": "CASE WHEN new_status = 'FAILED' THEN 1 ELSE 0 END",
                "max_attempts": "3",
                "created_at": MIDNIGHT,
                "updated_at": MIDNIGHT,
                "completed_at": f"CASE WHEN new_status <> 'PENDING' THEN {MIDNIGHT} END",
                "started_at": "NULL::timestamptz",
            },
            inferred={
                "data_found": "new_status = 'FAILED' AND s.data_found IS NULL",
                "created_at": "TRUE",
                "updated_at": "TRUE",
                "completed_at": "new_status <> 'PENDING'",
            },
            twin=daily_update_twin,
            # Two booleans know no "being worked on", "cancelled" or "nothing was to be found".
            reverse=Reverse(
                columns={
                    "date": "t.update_date",
                    "update_type": "t.update_type",
                    "attempted": "t.status IN ('COMPLETED', 'FAILED', 'CANCELLED')",
                    "data_found": "t.status = 'COMPLETED' AND t.data_found IS NOT FALSE",
                    "notes": "t.notes",
                },
                changed=("attempted", "data_found", "notes"),
            ),
            # The old table has no times at all, and of attempts only whether there was one.
            compared={"status": None, "data_found": None},
        ),
    ),
)
