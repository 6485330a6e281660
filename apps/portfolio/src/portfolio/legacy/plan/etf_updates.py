"""The legacy table ``etf_updates``."""

from __future__ import annotations

from typing import Final

from portfolio.legacy.plan.standard import (
    ENDED,
    INTEGER,
    NEW_STATUS_STEP,
    OLD_STATUS,
    SAME_DAY,
    STATUS_STEP,
    STATUSES,
    TEXT,
    TIMESTAMP,
    day_out_of_range,
    naive,
    standard_columns,
    time_out_of_range,
)
from portfolio.legacy.twins import (
    ETF_EXISTS,
    etf_update_twin,
)
from portfolio.models import TRACKING_SCHEMA
from tasktrail.migration.expressions import utc, word
from tasktrail.migration.plan import (
    Refusal,
    Reverse,
    Route,
    TableMigration,
)

UPDATE_CREATED: Final = (
    f"coalesce({utc('s.created_at')}, {utc('s.completed_at')}, {utc('s.end_date::timestamp')})"
)
UPDATE_ATTEMPTS: Final = "CASE WHEN old_word = 'retrying' AND s.retry_count = 0 THEN 1 ELSE s.retry_count END"

ETF_UPDATES: Final = TableMigration(
    name="etf_updates",
    source="public.etf_updates",
    key=("id",),
    source_columns={
        "id": INTEGER,
        "etf_id": TEXT,
        "update_type": TEXT,
        "start_date": ("date",),
        "end_date": ("date",),
        "status": TEXT,
        "created_at": TIMESTAMP,
        "completed_at": TIMESTAMP,
        "error": TEXT,
        "missing_dates": ("date[]",),
        "retry_count": INTEGER,
        "notes": TEXT,
    },
    kind=word("s.update_type"),
    context={ETF_EXISTS: "EXISTS (SELECT FROM public.etfs e WHERE e.id = s.etf_id)"},
    routes=(
        Route(
            name="etf_updates",
            target=f"{TRACKING_SCHEMA}.etf_updates",
            domain="etf_update",
            key=("id",),
            steps=(
                {**STATUS_STEP, "old_type": word("s.update_type")},
                NEW_STATUS_STEP,
            ),
            refusals=(
                Refusal("unknown_status", "new_status IS NULL"),
                Refusal(
                    "unknown_update_type",
                    "coalesce(old_type, '') NOT IN ('full', 'prices_only', 'info_only', 'manual')",
                ),
                Refusal(
                    "etf_unknown", "s.etf_id IS NULL OR NOT (s.etf_id IN (SELECT e.id FROM public.etfs e))"
                ),
                Refusal("date_missing", "s.start_date IS NULL OR s.end_date IS NULL"),
                Refusal(
                    "date_out_of_range",
                    f"{day_out_of_range('start_date')} OR {day_out_of_range('end_date')}",
                ),
                Refusal("dates_reversed", "s.start_date > s.end_date"),
                Refusal("created_at_out_of_range", time_out_of_range("created_at")),
                Refusal("completed_at_out_of_range", time_out_of_range("completed_at")),
                Refusal(
                    "retry_count_out_of_range",
                    "s.retry_count IS NULL OR s.retry_count NOT BETWEEN 0 AND 1000",
                ),
                Refusal(
                    "missing_dates_malformed",
                    "array_ndims(s.missing_dates) > 1 OR EXISTS (SELECT FROM "
                    "unnest(s.missing_dates) AS d (day) "
                    "WHERE day IS NULL OR day NOT BETWEEN '1990-01-01' AND '2099-12-31')",
                ),
            ),
            columns={
                "id": "s.id::bigint",
                "etf_id": "s.etf_id",
                "update_type": "old_type::varchar",
                "start_date": "s.start_date",
                "end_date": "s.end_date",
                "missing_dates": "s.missing_dates",
                "notes": "s.notes",
                **standard_columns(UPDATE_ATTEMPTS),
                "created_at": UPDATE_CREATED,
                "completed_at": f"CASE WHEN {ENDED} THEN "
                f"coalesce({utc('s.completed_at')}, {UPDATE_CREATED}) END",
                "updated_at": f"coalesce({utc('s.completed_at')}, {UPDATE_CREATED})",
                "started_at": f"CASE WHEN new_status = 'PROCESSING' THEN {UPDATE_CREATED} END",
            },
            inferred={
                "attempts": "old_word = 'retrying' AND s.retry_count = 0",
                "created_at": "s.created_at IS NULL",
                "completed_at": f"{ENDED} AND s.completed_at IS NULL",
                "updated_at": "TRUE",
                "started_at": "new_status = 'PROCESSING'",
            },
            statuses=STATUSES,
            twin=etf_update_twin,
            reverse=Reverse(
                columns={
                    "id": "t.id",
                    "etf_id": "t.etf_id",
                    "update_type": "t.update_type",
                    "start_date": "t.start_date",
                    "end_date": "t.end_date",
                    "status": OLD_STATUS,
                    "created_at": naive("created_at"),
                    "completed_at": naive("completed_at"),
                    "error": "t.error_message",
                    "missing_dates": "t.missing_dates",
                    "retry_count": "t.attempts",
                    "notes": "t.notes",
                },
                changed=("status", "completed_at", "error", "missing_dates", "retry_count", "notes"),
            ),
            # New rows have ids of their own: the work is known by what was asked for. Retries are counted in
            # the row on both sides. Notes and missing dates are about the source's answer, which the new
            # system examines and the old one did not.
            paired_by=("etf_id", "update_type", "start_date", "end_date"),
            compared={"status": None, "attempts": None, "completed_at": SAME_DAY},
        ),
    ),
)
