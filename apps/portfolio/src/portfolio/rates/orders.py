"""Exchange rates that another job needs: their updates are enqueued in its transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.models import ExchangeRateUpdateTracking
from portfolio.rates.tracking import DEFAULT_CURRENCIES, update_fields
from tasktrail import Enqueued, TrackedTask


@dataclass(frozen=True, slots=True)
class RateOrders:
    """Orders updates of exchange rates.

    Attributes:
        task: the tracked task of these updates.
        source: name of the source they are fetched from.
    """

    task: TrackedTask[ExchangeRateUpdateTracking]
    source: str

    async def place(
        self, db: AsyncSession, days: Iterable[date], currency: str | None = None
    ) -> list[Enqueued]:
        """Enqueue the updates of some days; those that are under way are joined, failed ones start again.

        Args:
            db: the session; the messages go out after its commit.
            days: publication days.
            currency: what is needed besides the usual currencies.

        Returns:
            The rows to wait for, oldest day first. Jobs that place orders at the same time do so in the same
            order, and so never wait for each other's locks in a circle.
        """
        currencies = list(DEFAULT_CURRENCIES)
        if currency is not None and currency not in currencies:
            currencies.append(currency)
        return [
            await self.task.aenqueue(
                db, on_duplicate="restart", **update_fields(day, currencies, self.source)
            )
            for day in sorted(set(days))
        ]
