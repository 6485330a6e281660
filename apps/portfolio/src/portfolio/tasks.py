"""The Celery tasks: thin, each names its service, its policy and the function that does the work."""

from __future__ import annotations

from dataclasses import dataclass

from portfolio.models import ExchangeRateUpdateTracking
from portfolio.rates.sources import RatesSource
from portfolio.rates.tracking import ExchangeRateTrackingService
from portfolio.rates.update import update_rates
from tasktrail import RetryPolicy, Run, TrackedTask, Trail


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tracked tasks of the application."""

    update_exchange_rates: TrackedTask[ExchangeRateUpdateTracking]


def register(trail: Trail, *, source: RatesSource, retry: RetryPolicy) -> Tasks:
    """Register the tasks.

    Args:
        trail: where.
        source: where exchange rates come from.
        retry: how failed attempts are repeated.
    """

    @trail.task(ExchangeRateTrackingService, name="portfolio.update_exchange_rates", retry=retry)
    async def update_exchange_rates(run: Run[ExchangeRateUpdateTracking]) -> None:
        """Fetch and store the exchange rates of one day."""
        await update_rates(run, source)

    return Tasks(update_exchange_rates)
