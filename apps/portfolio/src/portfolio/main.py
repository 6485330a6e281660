"""The composition root: puts settings, Celery, tracking and sources together."""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery

from portfolio.clock import Clock, utc_now
from portfolio.config import PortfolioSettings, PricesSourceName, SourceName
from portfolio.etfs.sources import BundledPrices, PriceSource, YahooPrices
from portfolio.models import TRACKING_SCHEMA
from portfolio.rates.sources import BundledHistory, LiveEcb, RatesSource
from portfolio.schedule import register_schedule
from portfolio.tasks import Tasks, register
from tasktrail import RetryPolicy, Settings, Trail


@dataclass(frozen=True, slots=True)
class Application:
    """The application, ready to enqueue or to work.

    Attributes:
        celery: the Celery application.
        trail: what tracks its jobs.
        tasks: the tracked tasks.
        source: where exchange rates come from.
        prices: where ETFs and their prices come from.
        clock: tells the time.
    """

    celery: Celery
    trail: Trail
    tasks: Tasks
    source: RatesSource
    prices: PriceSource
    clock: Clock


def build(
    settings: Settings,
    portfolio: PortfolioSettings | None = None,
    *,
    source: RatesSource | None = None,
    prices: PriceSource | None = None,
    clock: Clock = utc_now,
) -> Application:
    """Put the application together; nothing is connected.

    Args:
        settings: where database and broker are.
        portfolio: the application's own settings; read from the environment when left out.
        source: where exchange rates come from; by default what the settings name.
        prices: where ETFs and their prices come from; by default what the settings name.
        clock: tells the time.

    Raises:
        ConfigurationError: no database is configured, or a setting has a bad value.
    """
    portfolio = portfolio or PortfolioSettings.load()
    source = source or (LiveEcb() if portfolio.rates_source is SourceName.LIVE else BundledHistory())
    prices = prices or _prices(portfolio.prices_source, clock)
    celery = Celery("portfolio")
    celery.conf.update(
        task_default_queue="portfolio",
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        enable_utc=True,
        timezone="UTC",
    )
    trail = Trail(celery, settings, schema=TRACKING_SCHEMA)
    retry = RetryPolicy(base=portfolio.retry_base)
    tasks = register(trail, source=source, prices=prices, clock=clock, retry=retry)
    register_schedule(trail, tasks.update_daily, clock)
    return Application(celery, trail, tasks, source, prices, clock)


def _prices(name: PricesSourceName, clock: Clock) -> PriceSource:
    return YahooPrices(clock=clock) if name is PricesSourceName.YAHOO else BundledPrices()
