"""The work of an ETF update: fetch facts and prices, convert to euro, store, and say what is missing."""

from __future__ import annotations

from datetime import datetime

from portfolio.clock import Clock
from portfolio.etfs.conversion import converted, rate_days
from portfolio.etfs.errors import MissingRate, UnknownEtf
from portfolio.etfs.findings import Findings, examined
from portfolio.etfs.request import UpdateRequest, checked_request
from portfolio.etfs.sources import EtfInfo, PriceSource
from portfolio.etfs.store import stored_etf, upsert_etf, upsert_prices
from portfolio.etfs.tracking import symbol_of
from portfolio.models import EtfUpdateTracking
from portfolio.rates.orders import RateOrders
from portfolio.rates.store import stored_rates
from tasktrail import Run, WaitFor


async def update_etf(
    run: Run[EtfUpdateTracking], prices: PriceSource, rates: RateOrders, clock: Clock
) -> None:
    """Fetch what the row asks for and store it together with the row's completion.

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
    await run.asession.rollback()  # no transaction stays open while the source takes its time
    info = await prices.info(request.symbol)
    findings = await _ask(prices, info, request, now) if request.update_type.wants_prices else None
    if request.update_type.wants_info:
        await upsert_etf(run.asession, row.etf_id, info)
    if findings is not None:
        await _store(run, findings, prices.name, rates)


async def _ask(prices: PriceSource, info: EtfInfo, request: UpdateRequest, now: datetime) -> Findings:
    series = await prices.fetch(request.symbol, request.start_date, request.end_date)
    return examined(series, info, request, source=prices.name, now=now)


async def _store(run: Run[EtfUpdateTracking], findings: Findings, source: str, rates: RateOrders) -> None:
    series = findings.series
    days = rate_days(series.prices).values()
    try:
        in_euro = converted(series, await stored_rates(run.asession, series.currency, days))
    except MissingRate as missing:
        if any(needed.is_current for needed in await run.aprerequisites()):
            raise  # the updates that this attempt waited for did not bring them
        orders = await rates.place(run.asession, missing.days, missing.currency)
        raise WaitFor(orders) from missing
    await upsert_prices(run.asession, run.row.etf_id, source, in_euro)
    await run.arecord(missing_dates=list(findings.missing), notes=findings.notes)
