"""Storing exchange rates."""

from __future__ import annotations

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.models import ExchangeRate
from portfolio.rates.sources import DailyRates


async def upsert_rates(db: AsyncSession, rates: DailyRates) -> None:
    """Insert or correct the rates of one day, in one statement.

    Args:
        db: the session; the caller commits.
        rates: what the source published; nothing is written when it is empty.
    """
    if not rates.rates:
        return
    statement = insert(ExchangeRate).values(
        [
            {"date": rates.day, "currency": currency, "rate": rate}
            for currency, rate in sorted(rates.rates.items())
        ]
    )
    changed = statement.excluded.rate
    await db.execute(
        statement.on_conflict_do_update(
            index_elements=[ExchangeRate.date, ExchangeRate.currency],
            set_={"rate": changed},
            where=func.coalesce(ExchangeRate.rate != changed, True),
        )
    )
