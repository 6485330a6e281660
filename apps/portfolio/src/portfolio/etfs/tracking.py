"""The services of the ETF updates and of ETF creation."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from portfolio.clock import utc_now
from portfolio.etfs.fields import check_etf_id, check_range, check_symbol
from portfolio.etfs.request import checked_request
from portfolio.etfs.store import stored_etf
from portfolio.models import Etf, EtfCreationTracking, EtfUpdateTracking
from tasktrail import BaseTaskTrackingService, InvalidField


def symbol_of(etf: Etf) -> str:
    """Return by which name a source knows an ETF: its symbol, or its id where no symbol is stored."""
    return etf.symbol or etf.id


def update_fields(
    etf: Etf, update_type: str, start_date: date, end_date: date, *, now: datetime
) -> dict[str, Any]:
    """Return the fields of a new row for the update of an ETF.

    Args:
        etf: the ETF, as it is stored.
        update_type: one of :class:`portfolio.etfs.request.UpdateType`.
        start_date: first day.
        end_date: last day, which belongs to the range.
        now: the time, with a time zone.

    Raises:
        InvalidField: one of them is not acceptable; the error names it.
    """
    request = checked_request(symbol_of(etf), update_type, start_date, end_date, now=now)
    return {
        "etf_id": etf.id,
        "update_type": request.update_type.value,
        "start_date": request.start_date,
        "end_date": request.end_date,
    }


def creation_fields(
    symbol: str, *, history_start: date | None = None, history_end: date | None = None
) -> dict[str, Any]:
    """Return the fields of a new row for the creation of an ETF, whose id will be its symbol.

    Args:
        symbol: by which the source knows it.
        history_start: first day of the prices to fetch; by default the first there is.
        history_end: last day of them; by default the newest whose prices are final.

    Raises:
        InvalidField: the symbol has another form, or the range of the history makes no sense.
    """
    check_symbol(symbol)
    if history_start is not None or history_end is not None:
        names = ("history_start", "history_end")
        check_range(history_start or date.min, history_end or date.max, names=names)
    history = {"history_start": history_start, "history_end": history_end}
    metadata = {name: day.isoformat() for name, day in history.items() if day is not None}
    return {"etf_id": symbol, "task_metadata": metadata or None}


class EtfUpdateTrackingService(BaseTaskTrackingService[EtfUpdateTracking]):
    """Operations on the rows of ``tracking.etf_updates``."""

    model = EtfUpdateTracking

    async def create_update_tracking(
        self,
        etf_id: str,
        update_type: str,
        start_date: date,
        end_date: date,
        *,
        now: datetime | None = None,
        **more: Any,
    ) -> int:
        """Add a row for the update of an ETF.

        Args:
            etf_id: the ETF.
            update_type: ``full``, ``prices_only``, ``info_only`` or ``manual``.
            start_date: first day.
            end_date: last day, which belongs to the range; not in the future.
            now: the time, with a time zone; by default the clock's.
            **more: ``max_attempts`` or ``next_attempt_at``, if wanted.

        Returns:
            The row's id.

        Raises:
            InvalidField: a field is not acceptable, or there is no such ETF; there is no new row.
        """
        check_etf_id(etf_id)
        etf = await stored_etf(self.db, etf_id)
        if etf is None:
            raise InvalidField("etf_id", etf_id, "there is no such ETF")
        fields = update_fields(etf, update_type, start_date, end_date, now=now or utc_now())
        return await self.create_tracking(**{**more, **fields})


class EtfCreationTrackingService(BaseTaskTrackingService[EtfCreationTracking]):
    """Operations on the rows of ``tracking.etf_creation_tracking``."""

    model = EtfCreationTracking

    async def create_creation_tracking(
        self,
        symbol: str,
        *,
        history_start: date | None = None,
        history_end: date | None = None,
        **more: Any,
    ) -> int:
        """Return the row that tracks the creation of an ETF, adding it if there is none.

        Args:
            symbol: by which the source knows it; also its id.
            history_start: first day of the prices to fetch; by default the first there is.
            history_end: last day of them; by default the newest whose prices are final.
            **more: ``resource_id``, ``max_attempts`` or ``next_attempt_at``, if wanted.

        Returns:
            The row's id; the same one for the same ETF.

        Raises:
            InvalidField: a field is not acceptable; there is no new row.
        """
        fields = creation_fields(symbol, history_start=history_start, history_end=history_end)
        return await self.create_tracking(on_duplicate="return", **{**more, **fields})
