"""Exchange rates that another job needs: their updates are enqueued in its transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import ARRAY, Date, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.models import ExchangeRateUpdateTracking
from portfolio.rates.sources import BASE_CURRENCY
from portfolio.rates.tracking import DEFAULT_CURRENCIES, update_fields
from tasktrail import Status, TrackedTask, TrackingRef


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
    ) -> list[TrackingRef]:
        """Enqueue the updates of some days; those that are under way are joined, failed ones start again.

        Args:
            db: the session; the messages go out after its commit.
            days: publication days.
            currency: what is needed besides the usual currencies.

        Returns:
            The rows to wait for, oldest day first. Jobs that place orders at the same time do so in the same
            order, and so never wait for each other's locks in a circle.
        """
        wanted = sorted(set(days))
        there = await self._under_way(db, wanted)
        currencies = list(DEFAULT_CURRENCIES)
        if currency is not None and currency not in currencies:
            currencies.append(currency)
        orders = []
        for day in wanted:
            tracking_id = there.get(day)
            if tracking_id is None:
                fields = update_fields(day, currencies, self.source)
                tracking_id = (await self.task.aenqueue(db, on_duplicate="restart", **fields)).id
            orders.append(TrackingRef(self.task.domain.name, tracking_id))
        return orders

    async def _under_way(self, db: AsyncSession, days: list[date]) -> dict[date, int]:
        """Return the rows of these days that need no order, in one query."""
        row = ExchangeRateUpdateTracking
        query = select(row.update_date, row.id).where(
            row.update_date == func.any(bindparam("days", days, type_=ARRAY(Date))),
            row.base_currency == BASE_CURRENCY,
            row.status.in_([Status.PENDING, Status.PROCESSING, Status.COMPLETED]),
        )
        return {found.update_date: found.id for found in await db.execute(query)}
