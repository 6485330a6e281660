"""Storing exchange rates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal

from sqlalchemy import ARRAY, Date, bindparam, func, select
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


async def stored_rates(db: AsyncSession, currency: str, days: Iterable[date]) -> dict[date, Decimal]:
    """Return the stored rates of one currency on some days, read in one query.

    Args:
        db: the session.
        currency: the currency, as an ISO 4217 code.
        days: the days; those without a stored rate are left out of the answer.
    """
    wanted = bindparam("days", sorted(set(days)), type_=ARRAY(Date))
    query = select(ExchangeRate.date, ExchangeRate.rate).where(
        ExchangeRate.currency == currency, ExchangeRate.date == func.any(wanted)
    )
    return {row.date: row.rate for row in await db.execute(query)}
