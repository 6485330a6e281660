"""The work of an ETF update: fetch facts and prices, convert to euro, store, and say what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal

from portfolio.clock import Clock
from portfolio.etfs.conversion import converted, rate_day, rate_days
from portfolio.etfs.errors import MissingRate, UnknownEtf
from portfolio.etfs.findings import Findings, examined, expected_days
from portfolio.etfs.request import UpdateRequest, checked_request
from portfolio.etfs.sources import EtfInfo, PriceSource
from portfolio.etfs.store import stored_etf, upsert_etf, upsert_prices
from portfolio.etfs.tracking import symbol_of
from portfolio.models import EtfUpdateTracking
from portfolio.rates.orders import RateOrders
from portfolio.rates.sources import BASE_CURRENCY
from portfolio.rates.store import stored_rates
from tasktrail import Run, WaitFor


async def update_etf(
    run: Run[EtfUpdateTracking], prices: PriceSource, rates: RateOrders, clock: Clock
) -> None:
    """Fetch what the row asks for and store it together with the row's completion.

    The source is asked for prices only when the exchange rates are there, so that it is asked once. No
    transaction is open while it takes its time.

    Args:
        run: the attempt.
        prices: where the facts and the prices come from.
        rates: orders the exchange rates that are missing.
        clock: tells the time.

    Raises:
        InvalidField: the row asks for something that makes no sense.
        UnknownEtf: there is no such ETF, here or at the source.
        PricesError: the source is down, answered nonsense, or will never have these prices.
        WaitFor: exchange rates are missing; their updates are enqueued and waited for.
        MissingRate: they are still missing after that.
    """
    row, now = run.row, clock()
    etf = await stored_etf(run.asession, row.etf_id)
    if etf is None:
        raise UnknownEtf("the database", row.etf_id)
    request = checked_request(symbol_of(etf), row.update_type, row.start_date, row.end_date, now=now)
    await run.asession.rollback()
    info = await prices.info(request.symbol)
    try:
        if request.update_type.wants_prices:
            known = await _known_rates(run, info, request, now)
            series = await prices.fetch(request.symbol, request.start_date, request.end_date)
            await _store(
                run, examined(series, info, request, source=prices.name, now=now), prices.name, known
            )
    except MissingRate as missing:
        if any(needed.is_current for needed in await run.aprerequisites()):
            raise  # the updates that this attempt waited for did not bring them
        raise WaitFor(await rates.place(run.asession, missing.days, missing.currency)) from missing
    if request.update_type.wants_info:
        await upsert_etf(run.asession, row.etf_id, info)


async def _known_rates(
    run: Run[EtfUpdateTracking], info: EtfInfo, request: UpdateRequest, now: datetime
) -> Mapping[date, Decimal]:
    if info.currency == BASE_CURRENCY:
        return {}
    known = await stored_rates(run.asession, info.currency, rate_day(request.start_date), request.end_date)
    await run.asession.rollback()
    needed = rate_days(expected_days(info, request, now)).values()
    if missing := [day for day in needed if day not in known]:
        raise MissingRate(info.currency, missing)
    return known


async def _store(
    run: Run[EtfUpdateTracking], findings: Findings, source: str, rates: Mapping[date, Decimal]
) -> None:
    await upsert_prices(run.asession, run.row.etf_id, source, converted(findings.series, rates))
    await run.arecord(missing_dates=list(findings.missing), notes=findings.notes)
