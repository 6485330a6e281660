"""What both systems do differently in the parallel run, and why that does no harm."""

from __future__ import annotations

from datetime import date
from typing import Final

from tasktrail.migration.difference import Difference
from tasktrail.migration.plan import KnownDifference


def _is_day_without_data(difference: Difference) -> bool:
    return (difference.way, difference.table, difference.column, difference.expected, difference.found) == (
        "pair",
        "daily_update_tracking",
        "status",
        "FAILED",
        "COMPLETED",
    )


def _is_retry_of_one_side(difference: Difference) -> bool:
    return (difference.way, difference.table, difference.column) == ("pair", "etf_updates", "attempts")


KNOWN: Final = (
    KnownDifference(
        name="day_without_data",
        reason="on a day on which nothing is published the new system has nothing to do and completes; the "
        "old one only knew that it tried and found nothing. Whether data were found is compared by itself",
        expires=date(2027, 6, 30),
        applies=_is_day_without_data,
    ),
    KnownDifference(
        name="retry_of_one_side",
        reason="both ask the source by themselves, so one may meet an outage that the other does not; how it "
        "ended is compared by itself",
        expires=date(2027, 6, 30),
        applies=_is_retry_of_one_side,
    ),
)
"""What both systems do differently, and why that does no harm."""
