"""The Celery tasks: thin, each names its service, its policy and the function that does the work."""

from __future__ import annotations

from dataclasses import dataclass

from portfolio.clock import Clock
from portfolio.daily.tracking import DailyUpdateTrackingService
from portfolio.daily.update import DailyWork
from portfolio.etfs import creation, update
from portfolio.etfs.orders import EtfOrders
from portfolio.etfs.sources import PriceSource
from portfolio.etfs.tracking import EtfCreationTrackingService, EtfUpdateTrackingService
from portfolio.models import (
    DailyUpdateTracking,
    EtfCreationTracking,
    EtfUpdateTracking,
    ExchangeRateUpdateTracking,
)
from portfolio.rates.orders import RateOrders
from portfolio.rates.sources import RatesSource
from portfolio.rates.tracking import ExchangeRateTrackingService
from portfolio.rates.update import update_rates
from tasktrail import RetryPolicy, Run, TrackedTask, Trail


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tracked tasks of the application."""

    update_exchange_rates: TrackedTask[ExchangeRateUpdateTracking]
    update_etf: TrackedTask[EtfUpdateTracking]
    create_etf: TrackedTask[EtfCreationTracking]
    update_daily: TrackedTask[DailyUpdateTracking]


def register(
    trail: Trail, *, source: RatesSource, prices: PriceSource, clock: Clock, retry: RetryPolicy
) -> Tasks:
    """Register the tasks.

    Args:
        trail: where.
        source: where exchange rates come from.
        prices: where ETFs and their prices come from.
        clock: tells the time.
        retry: how failed attempts are repeated.
    """

    @trail.task(ExchangeRateTrackingService, name="portfolio.update_exchange_rates", retry=retry)
    async def update_exchange_rates(run: Run[ExchangeRateUpdateTracking]) -> None:
        """Fetch and store the exchange rates of one day."""
        await update_rates(run, source)

    rates = RateOrders(update_exchange_rates, source.name)

    @trail.task(EtfUpdateTrackingService, name="portfolio.update_etf", retry=retry)
    async def update_etf(run: Run[EtfUpdateTracking]) -> None:
        """Fetch facts and prices of one ETF, and store the prices in euro."""
        await update.update_etf(run, prices, rates, clock)

    etfs = EtfOrders(update_etf, clock)

    @trail.task(EtfCreationTrackingService, name="portfolio.create_etf", retry=retry)
    async def create_etf(run: Run[EtfCreationTracking]) -> None:
        """Create one ETF with its facts and its history."""
        await creation.create_etf(run, prices, etfs, clock)

    daily = DailyWork(rates, etfs, prices.name, clock)

    @trail.task(DailyUpdateTrackingService, name="portfolio.update_daily", retry=retry)
    async def update_daily(run: Run[DailyUpdateTracking]) -> None:
        """Bring one kind of data up to date as of one day, if that is due."""
        await daily.update(run)

    return Tasks(update_exchange_rates, update_etf, create_etf, update_daily)
