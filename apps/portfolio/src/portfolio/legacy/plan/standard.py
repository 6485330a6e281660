"""What the rows of more than one legacy table share."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tasktrail.migration.expressions import mapped, trimmed, word

STATUSES: Final = {
    "pending": "PENDING",
    "retrying": "PENDING",
    "processing": "PROCESSING",
    "running": "PROCESSING",
    "started": "PROCESSING",
    "completed": "COMPLETED",
    "success": "COMPLETED",
    "done": "COMPLETED",
    "completed_with_errors": "COMPLETED",
    "failed": "FAILED",
    "error": "FAILED",
    "cancelled": "CANCELLED",
    "canceled": "CANCELLED",
    "revoked": "CANCELLED",
}

ENDED: Final = "new_status IN ('COMPLETED', 'FAILED', 'CANCELLED')"

TEXT: Final = ("character varying", "text")
TIMESTAMP: Final = ("timestamp without time zone",)
INTEGER: Final = ("integer", "bigint")

SAME_DAY: Final = timedelta(days=1)
"""How far apart both systems may end the same work: each has a schedule of its own, once a day."""


def time_out_of_range(column: str) -> str:
    """Return SQL that is true for times that no old worker can have meant."""
    return f"s.{column} < '1990-01-01' OR s.{column} >= '2100-01-01'"


def day_out_of_range(column: str) -> str:
    """Return SQL that is true for days that no old worker can have meant."""
    return f"s.{column} NOT BETWEEN '1990-01-01' AND '2099-12-31'"


STATUS_STEP: Final = {"old_word": word("s.status")}
NEW_STATUS_STEP: Final = {"new_status": mapped("old_word", STATUSES)}


def standard_columns(attempts: str) -> dict[str, str]:
    """Return SQL for the standard columns that come from ``status`` and ``error``."""
    return {
        "status": "new_status",
        "error_message": f"CASE WHEN {trimmed('s.error')} <> '' THEN s.error END",
        "attempts": attempts,
        "max_attempts": f"greatest(3, ({attempts}) + CASE WHEN {ENDED} THEN 0 ELSE 1 END)",
    }


OLD_STATUS: Final = (
    "CASE t.status WHEN 'PENDING' THEN CASE WHEN t.attempts > 0 THEN 'retrying' ELSE 'pending' END "
    "WHEN 'PROCESSING' THEN 'processing' WHEN 'FAILED' THEN 'failed' WHEN 'CANCELLED' THEN 'cancelled' "
    "ELSE CASE WHEN t.error_message IS NULL THEN 'completed' ELSE 'completed_with_errors' END END"
)
"""The word that old code knows for a state."""


def naive(column: str) -> str:
    """Return SQL for a time of the target as the legacy tables have it: in UTC, without saying so."""
    return f"t.{column} AT TIME ZONE 'UTC'"
