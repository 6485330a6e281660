"""What both routes from ``task_status`` share."""

from __future__ import annotations

from typing import Final

from portfolio.legacy.plan.standard import ENDED, OLD_STATUS, naive, time_out_of_range
from portfolio.models import TRACKING_SCHEMA
from tasktrail.migration.expressions import json_of, utc
from tasktrail.migration.plan import Refusal

TASK_METADATA_STEPS: Final = (
    {"json_text": "s.task_metadata::text"},
    {"brackets": "length(json_text) - length(translate(json_text, '[{', ''))"},
    {"metadata": f"CASE WHEN brackets <= 500 THEN {json_of('s.task_metadata', TRACKING_SCHEMA)} END"},
    {"shape": "coalesce(jsonb_typeof(metadata), 'null')"},
)
"""JSON is only parsed when its brackets cannot nest too deep; NULL and JSON null are both absent."""

TASK_REFUSALS: Final = (
    Refusal("unknown_status", "new_status IS NULL"),
    Refusal("created_at_out_of_range", time_out_of_range("created_at")),
    Refusal("updated_at_out_of_range", time_out_of_range("updated_at")),
    Refusal("metadata_too_complex", "brackets > 500"),
    Refusal("metadata_not_json", "s.task_metadata IS NOT NULL AND metadata IS NULL"),
)

TASK_ATTEMPTS: Final = "CASE WHEN new_status = 'FAILED' OR old_word = 'retrying' THEN 1 ELSE 0 END"


def task_times(created: str) -> dict[str, str]:
    """Return SQL for the times of a row of ``task_status``, given when it was created."""
    updated = f"coalesce({utc('s.updated_at')}, {created})"
    return {
        "created_at": created,
        "updated_at": updated,
        "completed_at": f"CASE WHEN {ENDED} THEN {updated} END",
        "started_at": f"CASE WHEN new_status = 'PROCESSING' THEN {updated} END",
    }


TASK_BACK: Final = {
    "status": OLD_STATUS,
    "error": "t.error_message",
    "created_at": naive("created_at"),
    "updated_at": naive("updated_at"),
}
TASK_CHANGED: Final = ("status", "error", "updated_at")

TASK_TIMES_INFERRED: Final = {
    "created_at": "s.created_at IS NULL",
    "updated_at": "s.updated_at IS NULL",
    "completed_at": f"{ENDED} AND s.updated_at IS NULL",
    "started_at": "new_status = 'PROCESSING'",
}
