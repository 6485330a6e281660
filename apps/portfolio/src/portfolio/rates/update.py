"""The work of an exchange-rate update: fetch one day, store it, count it."""

from __future__ import annotations

from portfolio.models import ExchangeRateUpdateTracking
from portfolio.rates.sources import RatesSource
from portfolio.rates.store import upsert_rates
from tasktrail import GiveUp, Run


class NoRates(GiveUp):
    """None of the wanted currencies has a rate on that day."""


async def update_rates(run: Run[ExchangeRateUpdateTracking], source: RatesSource) -> None:
    """Fetch the rates of the row's day and store them together with the row's completion.

    Args:
        run: the attempt.
        source: where the rates come from.

    Raises:
        NoRates: no wanted currency is published any more.
        RatesError: the source has nothing for that day, is down, or answered nonsense.
    """
    row = run.row
    wanted = row.target_currencies
    await run.aprogress(done=0, total=len(wanted))
    rates = await source.fetch(row.update_date, wanted)
    if not rates.rates:
        raise NoRates(f"{source.name} has none of {', '.join(wanted)} on {row.update_date}")
    await upsert_rates(run.asession, rates)
    await run.aprogress(done=len(rates.rates))
    if rates.missing:
        run.note(f"no rate published for {', '.join(rates.missing)}")
