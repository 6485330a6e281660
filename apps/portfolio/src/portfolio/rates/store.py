"""Storing exchange rates."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from sqlalchemy import func, select
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


async def stored_rates(db: AsyncSession, currency: str, first: date, last: date) -> dict[date, Decimal]:
    """Return the stored rates of one currency in a range of days, read in one query.

    Args:
        db: the session.
        currency: the currency, as an ISO 4217 code.
        first: first day.
        last: last day, which belongs to the range.
    """
    query = select(ExchangeRate.date, ExchangeRate.rate).where(
        ExchangeRate.currency == currency, ExchangeRate.date.between(first, last)
    )
    return {row.date: row.rate for row in await db.execute(query)}
