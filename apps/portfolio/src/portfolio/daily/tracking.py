"""The service of the daily updates."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from portfolio.clock import utc_now
from portfolio.daily.kinds import check_daily, data_are_out_at
from portfolio.models import DailyUpdateTracking
from tasktrail import BaseTaskTrackingService


def daily_fields(update_date: date, update_type: str, *, now: datetime) -> dict[str, Any]:
    """Return the fields of a new row.

    A row for today is due when the data of today are out: before that it could only find that they are not,
    and there is one row a day.

    Args:
        update_date: the day, not in the future.
        update_type: ``exchange_rates``, ``etf_prices`` or ``etf_prices_<etf id>``.
        now: the time, with a time zone.

    Raises:
        InvalidField: the day or the type is not acceptable.
    """
    check_daily(update_date, update_type, now)
    fields: dict[str, Any] = {"update_date": update_date, "update_type": update_type}
    out_at = data_are_out_at(update_date, update_type)
    return {**fields, "next_attempt_at": out_at} if out_at is not None and out_at > now else fields


class DailyUpdateTrackingService(BaseTaskTrackingService[DailyUpdateTracking]):
    """Operations on the rows of ``tracking.daily_update_tracking``."""

    model = DailyUpdateTracking

    async def create_update_tracking(
        self, update_date: date, update_type: str, *, now: datetime | None = None, **more: Any
    ) -> int:
        """Return the row that tracks the daily update of one day and type, adding it if there is none.

        Args:
            update_date: the day, not in the future.
            update_type: ``exchange_rates``, ``etf_prices`` or ``etf_prices_<etf id>``.
            now: the time, with a time zone; by default the clock's.
            **more: ``max_attempts`` or ``next_attempt_at``, if wanted.

        Returns:
            The row's id; the same one for the same day and type.

        Raises:
            InvalidField: a field is not acceptable; there is no new row.
        """
        fields = daily_fields(update_date, update_type, now=now or utc_now())
        return await self.create_tracking(on_duplicate="return", **{**fields, **more})
