"""The work of creating an ETF: fill in its facts, and have its whole history fetched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy import select

from portfolio.clock import Clock
from portfolio.etfs.calendar import first_day, newest_final_day
from portfolio.etfs.orders import EtfOrders
from portfolio.etfs.request import UpdateType
from portfolio.etfs.sources import EtfInfo, PriceSource
from portfolio.etfs.store import stored_etf, upsert_etf
from portfolio.etfs.tracking import symbol_of
from portfolio.models import Etf, EtfCreationTracking, EtfUpdateTracking
from portfolio.rates.calendar import FIRST_DAY
from tasktrail import GiveUp, InvalidField, Prerequisite, Run, Status, WaitFor


class HistoryNotFetched(GiveUp):
    """The history of the new ETF could not be fetched."""


async def create_etf(
    run: Run[EtfCreationTracking], prices: PriceSource, etfs: EtfOrders, clock: Clock
) -> None:
    """Store the facts of an ETF, then wait for an update that fetches its history.

    Args:
        run: the attempt.
        prices: where the facts come from.
        etfs: orders the update.
        clock: tells the time.

    Raises:
        InvalidField: the row asks for something that makes no sense.
        PricesError: the source is down, answered nonsense, or does not know the ETF.
        WaitFor: the update is under way.
        HistoryNotFetched: it failed.
    """
    waited = [needed for needed in await run.aprerequisites() if needed.is_current]
    if waited:
        await _conclude(run, waited)
        return
    row = run.row
    etf = await stored_etf(run.asession, row.etf_id)
    symbol = symbol_of(etf) if etf is not None else row.etf_id
    await run.asession.rollback()  # no transaction stays open while the source takes its time
    info = await prices.info(symbol)
    start, end = history_of(info, row.task_metadata or {}, clock())
    await upsert_etf(run.asession, row.etf_id, info)
    if start > end:
        run.note("there are no prices yet")
        return
    created = Etf(id=row.etf_id, symbol=symbol)
    raise WaitFor([await etfs.place(run.asession, created, UpdateType.FULL, start, end)])


def history_of(info: EtfInfo, metadata: Mapping[str, Any], now: datetime) -> tuple[date, date]:
    """Return the first and the last day of the history to fetch; the first after the last if there is none.

    Args:
        info: what the source knows about the ETF.
        metadata: of the row; ``history_start`` and ``history_end`` shorten the history.
        now: the time, with a time zone.

    Raises:
        InvalidField: one of them is not a date.
    """
    start = _day(metadata, "history_start") or date.min
    end = _day(metadata, "history_end") or date.max
    first = info.first_day or date.min
    last = info.last_day or date.max
    return (
        max(start, first, first_day(info.calendar), FIRST_DAY),
        min(end, last, newest_final_day(now, info.calendar)),
    )


def _day(metadata: Mapping[str, Any], name: str) -> date | None:
    value = metadata.get(name)
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidField(f"task_metadata.{name}", value, "a date such as 2021-12-31 is needed") from None


async def _conclude(run: Run[EtfCreationTracking], waited: list[Prerequisite]) -> None:
    row = EtfUpdateTracking
    ids = [needed.ref.id for needed in waited if needed.ref.domain == row.__tracking__.domain]
    newest = await run.asession.scalar(select(row).where(row.id.in_(ids)).order_by(row.id.desc()).limit(1))
    if newest is None:
        raise HistoryNotFetched("the update that was to fetch the history is gone")
    if newest.status != Status.COMPLETED:
        reason = f": {newest.error_message}" if newest.error_message else ""
        raise HistoryNotFetched(f"etf_update {newest.id} is {newest.status}{reason}")
    if newest.missing_dates:
        run.note(f"no price came for {len(newest.missing_dates)} trading days; see etf_update {newest.id}")
