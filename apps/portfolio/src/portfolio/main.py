"""The composition root: puts settings, Celery, tracking and sources together."""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery

from portfolio.config import PortfolioSettings, SourceName
from portfolio.models import TRACKING_SCHEMA
from portfolio.rates.sources import BundledHistory, LiveEcb, RatesSource
from portfolio.tasks import Tasks, register
from tasktrail import RetryPolicy, Settings, Trail


@dataclass(frozen=True, slots=True)
class Application:
    """The application, ready to enqueue or to work."""

    celery: Celery
    trail: Trail
    tasks: Tasks
    source: RatesSource


def build(
    settings: Settings,
    portfolio: PortfolioSettings | None = None,
    *,
    source: RatesSource | None = None,
) -> Application:
    """Put the application together; nothing is connected.

    Args:
        settings: where database and broker are.
        portfolio: the application's own settings; read from the environment when left out.
        source: where exchange rates come from; by default what the settings name.

    Raises:
        ConfigurationError: no database is configured, or a setting has a bad value.
    """
    portfolio = portfolio or PortfolioSettings.load()
    source = source or (LiveEcb() if portfolio.rates_source is SourceName.LIVE else BundledHistory())
    celery = Celery("portfolio")
    celery.conf.update(
        task_default_queue="portfolio",
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        enable_utc=True,
        timezone="UTC",
    )
    trail = Trail(celery, settings, schema=TRACKING_SCHEMA)
    tasks = register(trail, source=source, retry=RetryPolicy(base=portfolio.retry_base))
    return Application(celery, trail, tasks, source)
