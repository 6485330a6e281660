"""What is stored so far, as far as a daily update has to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.daily.decision import LOOK_BACK, Stored
from portfolio.models import Etf, EtfPrice, EtfUpdateTracking, ExchangeRate, ExchangeRateUpdateTracking
from tasktrail import Status


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one update that a daily update waited for.

    Attributes:
        what: what it was about: a day, or an ETF.
        found: whether it brought data.
        failure: what went wrong; None if nothing did.
    """

    what: str
    found: bool
    failure: str | None


async def stored_rate_days(db: AsyncSession, day: date) -> Stored:
    """Return on which days up to ``day`` there are exchange rates."""
    newest = await db.scalar(select(func.max(ExchangeRate.date)).where(ExchangeRate.date <= day))
    recent = await db.scalars(
        select(ExchangeRate.date).where(ExchangeRate.date.between(_week_before(day), day)).distinct()
    )
    return Stored(newest, frozenset(recent))


async def stored_price_days(
    db: AsyncSession, day: date, source: str, etf_id: str | None
) -> list[tuple[Etf, Stored]]:
    """Return for one ETF or all on which days up to ``day`` there are prices from a source.

    Args:
        db: the session.
        day: the day.
        source: name of the source.
        etf_id: the ETF; None for all.
    """
    newest = (
        select(func.max(EtfPrice.date))
        .where(EtfPrice.etf_id == Etf.id, EtfPrice.source == source, EtfPrice.date <= day)
        .scalar_subquery()
    )
    etfs = select(Etf, newest).order_by(Etf.id)
    if etf_id is not None:
        etfs = etfs.where(Etf.id == etf_id)
    recent: dict[str, set[date]] = {}
    prices = select(EtfPrice.etf_id, EtfPrice.date).where(
        EtfPrice.source == source, EtfPrice.date.between(_week_before(day), day)
    )
    for owner, there in await db.execute(prices):
        recent.setdefault(owner, set()).add(there)
    return [(etf, Stored(found, frozenset(recent.get(etf.id, ())))) for etf, found in await db.execute(etfs)]


async def rate_outcomes(db: AsyncSession, ids: Iterable[int]) -> list[Outcome]:
    """Return what became of updates of exchange rates, oldest day first."""
    row = ExchangeRateUpdateTracking
    has_rates = select(ExchangeRate.date).where(ExchangeRate.date == row.update_date).exists()
    query = select(row, has_rates).where(row.id.in_(sorted(ids))).order_by(row.update_date)
    outcomes = []
    for update, there in await db.execute(query):
        failure = _failure(update.status, update.error_message)
        if failure is None and not there:
            failure = f"{update.status} on {update.completed_at:%Y-%m-%d}, but no rate of that day is stored"
        outcomes.append(Outcome(str(update.update_date), failure is None, failure))
    return outcomes


async def etf_outcomes(db: AsyncSession, ids: Iterable[int], source: str) -> list[Outcome]:
    """Return what became of updates of ETFs, by ETF.

    One that brought no price although there were trading days counts as a failure, too.
    """
    row = EtfUpdateTracking
    has_prices = (
        select(EtfPrice.date)
        .where(
            EtfPrice.etf_id == row.etf_id,
            EtfPrice.source == source,
            EtfPrice.date.between(row.start_date, row.end_date),
        )
        .exists()
    )
    query = select(row, has_prices).where(row.id.in_(sorted(ids))).order_by(row.etf_id, row.id)
    outcomes = []
    for update, there in await db.execute(query):
        failure = _failure(update.status, update.error_message)
        found = there and failure is None
        if failure is None and not found and update.missing_dates:
            failure = f"no price came for {_days(update.missing_dates)}"
        outcomes.append(Outcome(update.etf_id, found, failure))
    return outcomes


def _week_before(day: date) -> date:
    return day - timedelta(days=LOOK_BACK - 1)


def _failure(status: str, error: str | None) -> str | None:
    return None if status == Status.COMPLETED else f"{status}, {error or 'without a reason'}"


def _days(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{len(days)} days from {days[0]} to {days[-1]}"
