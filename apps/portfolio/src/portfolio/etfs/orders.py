"""ETF updates that another job needs: they are enqueued in its transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.clock import Clock
from portfolio.etfs.request import UpdateType
from portfolio.etfs.tracking import update_fields
from portfolio.models import Etf, EtfUpdateTracking
from tasktrail import TrackedTask, TrackingRef


@dataclass(frozen=True, slots=True)
class EtfOrders:
    """Orders updates of ETFs.

    Attributes:
        task: the tracked task of these updates.
        clock: tells the time.
    """

    task: TrackedTask[EtfUpdateTracking]
    clock: Clock

    async def place(
        self, db: AsyncSession, etf: Etf, update_type: UpdateType, start: date, end: date
    ) -> TrackingRef:
        """Enqueue the update of one ETF.

        Args:
            db: the session; the message goes out after its commit.
            etf: the ETF.
            update_type: what to fetch.
            start: first day.
            end: last day, which belongs to the range.

        Returns:
            The row to wait for.

        Raises:
            InvalidField: the range makes no sense.
        """
        fields = update_fields(etf, update_type, start, end, now=self.clock())
        enqueued = await self.task.aenqueue(db, **fields)
        return TrackingRef(enqueued.domain, enqueued.id)
