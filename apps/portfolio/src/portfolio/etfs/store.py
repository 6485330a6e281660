"""Storing ETFs and their prices: one statement each, which writes only what differs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    CursorResult,
    Date,
    Numeric,
    Result,
    String,
    bindparam,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.etfs.conversion import EurPrice
from portfolio.etfs.sources import EtfInfo
from portfolio.models import Etf, EtfPrice
from portfolio.rates.sources import BASE_CURRENCY


async def stored_etf(db: AsyncSession, etf_id: str) -> Etf | None:
    """Return an ETF, if there is one of that id.

    Args:
        db: the session.
        etf_id: its id.
    """
    found: Etf | None = await db.scalar(select(Etf).where(Etf.id == etf_id))
    return found


async def upsert_etf(db: AsyncSession, etf_id: str, info: EtfInfo) -> bool:
    """Insert an ETF, or bring its facts up to date.

    Args:
        db: the session; the caller commits.
        etf_id: its id.
        info: the facts. An ISIN that the source does not say stays as it is stored.

    Returns:
        Whether anything changed.
    """
    statement = insert(Etf).values(
        id=etf_id, symbol=info.symbol, name=info.name, currency=info.currency, isin=info.isin
    )
    new = statement.excluded
    facts = {
        "symbol": new.symbol,
        "name": new.name,
        "currency": new.currency,
        "isin": func.coalesce(new.isin, Etf.isin),
    }
    differs = tuple_(*(getattr(Etf, name) for name in facts)).is_distinct_from(tuple_(*facts.values()))
    statement = statement.on_conflict_do_update(index_elements=[Etf.id], set_=facts, where=differs)
    return _changed(await db.execute(statement)) > 0


async def upsert_prices(db: AsyncSession, etf_id: str, source: str, prices: Mapping[date, EurPrice]) -> int:
    """Insert or correct prices of one ETF from one source.

    Args:
        db: the session; the caller commits.
        etf_id: the ETF.
        source: name of the source.
        prices: by day.

    Returns:
        How many rows were inserted or changed; 0 when all of them were there already.
    """
    if not prices:
        return 0
    days = sorted(prices)  # jobs that store prices of one ETF at the same time lock its rows in one order
    number = ARRAY(Numeric(20, 6))
    new = (
        func.unnest(
            bindparam("days", days, type_=ARRAY(Date)),
            bindparam("prices", [prices[day].price for day in days], type_=number),
            bindparam("quoted", [prices[day].original_price for day in days], type_=number),
            bindparam("currencies", [prices[day].original_currency for day in days], type_=ARRAY(String)),
        )
        .table_valued("day", "price", "quoted", "currency")
        .render_derived(name="new")
    )
    values = {
        "etf_id": literal(etf_id),
        "date": new.c.day,
        "source": literal(source),
        "price": new.c.price,
        "currency": literal(BASE_CURRENCY),
        "original_price": new.c.quoted,
        "original_currency": new.c.currency,
    }
    statement = insert(EtfPrice).from_select(list(values), select(*values.values()))
    written = ("price", "currency", "original_price", "original_currency")
    there = tuple_(*(getattr(EtfPrice, name) for name in written))
    statement = statement.on_conflict_do_update(
        index_elements=[EtfPrice.etf_id, EtfPrice.date, EtfPrice.source],
        set_={name: statement.excluded[name] for name in written},
        where=there.is_distinct_from(tuple_(*(statement.excluded[name] for name in written))),
    )
    return _changed(await db.execute(statement))


def _changed(result: Result[Any]) -> int:
    return cast("CursorResult[Any]", result).rowcount
