"""The second part: five new ETFs with a year of prices in euro, and the daily updates of three days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from rich.table import Table
from sqlalchemy import Row, func, select, text
from sqlalchemy.orm import Session

from portfolio.daily.tracking import daily_fields
from portfolio.demo.stage import Stage, coloured, table
from portfolio.etfs.calendar import trading_days
from portfolio.etfs.conversion import rate_days, to_the_cent
from portfolio.etfs.sources import BundledPrices
from portfolio.etfs.tracking import creation_fields
from portfolio.models import (
    ETF_PRICES,
    EXCHANGE_RATES,
    DailyUpdateTracking,
    EtfCreationTracking,
    EtfPrice,
    ExchangeRateUpdateTracking,
)
from portfolio.watch import Family
from tasktrail import Enqueued, Status

FIRST: Final = date(2021, 1, 1)
LAST: Final = date(2021, 12, 31)

BUSINESS_DAY: Final = date(2022, 1, 3)
"""The first trading day after the year that is stored."""

DAYS: Final = {"business day": BUSINESS_DAY, "holiday": date(2021, 4, 2), "Saturday": date(2021, 12, 18)}

CHECK: Final = text(
    """
    SELECT p.etf_id, count(*) AS prices, max(p.date) AS newest,
           (array_agg(p.original_price ORDER BY p.date DESC))[1] AS usd,
           (array_agg(r.rate ORDER BY p.date DESC))[1] AS rate,
           (array_agg(p.price ORDER BY p.date DESC))[1] AS eur,
           count(*) FILTER (WHERE p.price = round(p.original_price / r.rate, 6)) AS right_ones
    FROM etf_prices p
    CROSS JOIN LATERAL (
        SELECT rate FROM exchange_rates WHERE currency = 'USD' AND date <= p.date ORDER BY date DESC LIMIT 1
    ) r
    WHERE p.date BETWEEN :first AND :last
    GROUP BY p.etf_id ORDER BY p.etf_id
    """
)
"""The prices of a range for each ETF, and how many of them are the price in dollars by the day's rate."""


def play(stage: Stage) -> bool:
    """Add the ETFs with their prices of a year, and return whether the database says what it should."""
    tasks, symbols = stage.application.tasks, BundledPrices().symbols()
    stage.console.print(
        f"[bold]4.[/] adding {len(symbols)} ETFs with their prices from {FIRST} to {LAST}; "
        "the rates come through the rates job"
    )
    created = [
        tasks.create_etf.enqueue(**creation_fields(symbol, history_start=FIRST, history_end=LAST))
        for symbol in symbols
    ]
    _say_how_many(stage, created)
    family = Family(stage.application.trail, created)
    stage.watch("adding", family.count, family.has_ended)
    return _report(stage, symbols)


def _say_how_many(stage: Stage, enqueued: list[Enqueued]) -> None:
    new = sum(one.outcome == "created" for one in enqueued)
    stage.console.print(f"   {new} new rows, {len(enqueued) - new} were there already")


def _report(stage: Stage, symbols: tuple[str, ...]) -> bool:
    days = trading_days(FIRST, LAST)
    needed = sorted(set(rate_days(days).values()))
    rates = ExchangeRateUpdateTracking
    with Session(stage.engine) as db:
        found = db.execute(CHECK, {"first": FIRST, "last": LAST}).all()
        creations = db.execute(select(EtfCreationTracking.etf_id, EtfCreationTracking.status))
        statuses = {row.etf_id: row.status for row in creations}
        fetched = db.scalar(
            select(func.count()).where(rates.update_date.in_(needed), rates.status == Status.COMPLETED)
        )
    stage.console.print(_price_table(found, statuses))
    right = sum(row.right_ones for row in found)
    total = len(symbols) * len(days)
    stage.console.print(
        f"prices stored: {sum(row.prices for row in found)}, for {len(symbols)} ETFs on {len(days)} trading "
        f"days: {total}\n"
        f"prices that are the price in dollars by the ECB's rate, to the sixth decimal: {right}\n"
        f"updates of exchange rates for them: {fetched} COMPLETED, for {len(needed)} days"
    )
    return stage.verdict(
        as_it_should_be=[row.etf_id for row in found] == sorted(symbols)
        and {statuses.get(symbol) for symbol in symbols} == {Status.COMPLETED}
        and {row.prices for row in found} == {len(days)}
        and right == total
        and fetched == len(needed)
    )


def _price_table(found: Sequence[Row[Any]], statuses: Mapping[str, str]) -> Table:
    made = table(
        "tracking.etf_creation_tracking and etf_prices",
        ("ETF", "left"),
        ("status", "left"),
        ("prices", "right"),
        ("newest", "left"),
        ("USD", "right"),
        ("USD per EUR", "right"),
        ("EUR", "right"),
    )
    for row in found:
        numbers = (_plain(row.usd), _plain(row.rate), str(to_the_cent(row.eur)))
        made.add_row(
            row.etf_id, coloured(statuses[row.etf_id]), str(row.prices), f"{row.newest:%a %Y-%m-%d}", *numbers
        )
    return made


def play_daily(stage: Stage) -> bool:
    """Run the daily updates of three days, and return whether the database says what it should."""
    stage.console.print(f"[bold]5.[/] running the daily updates of {', '.join(f'a {day}' for day in DAYS)}")
    now = stage.application.clock()
    created = [
        stage.application.tasks.update_daily.enqueue(**daily_fields(day, update_type, now=now))
        for day in DAYS.values()
        for update_type in (EXCHANGE_RATES, ETF_PRICES)
    ]
    _say_how_many(stage, created)
    family = Family(stage.application.trail, created)
    stage.watch("working", family.count, family.has_ended)
    row = DailyUpdateTracking
    with Session(stage.engine) as db:
        rows = db.scalars(select(row).where(row.id.in_([one.id for one in created])).order_by(row.id)).all()
        found = db.execute(CHECK, {"first": BUSINESS_DAY, "last": BUSINESS_DAY}).all()
        prices = db.scalar(select(func.count()).select_from(EtfPrice).where(EtfPrice.date == BUSINESS_DAY))
    stage.console.print(_daily_table(rows))
    stage.console.print(f"prices of {BUSINESS_DAY}: {prices}")
    return stage.verdict(
        as_it_should_be=len(rows) == 2 * len(DAYS)
        and {one.status for one in rows} == {Status.COMPLETED}
        and all(one.data_found is (one.update_date == BUSINESS_DAY) for one in rows)
        and prices == len(found) == sum(one.right_ones for one in found) == len(BundledPrices().symbols())
    )


def _daily_table(rows: Sequence[DailyUpdateTracking]) -> Table:
    made = table(
        "tracking.daily_update_tracking",
        ("day", "left"),
        ("type", "left"),
        ("status", "left"),
        ("data", "left"),
    )
    made.add_column("notes")
    for row in rows:
        data = "found" if row.data_found else "none"
        notes = (row.notes or "").replace("\n", "; ")
        made.add_row(f"{row.update_date:%a %Y-%m-%d}", row.update_type, coloured(row.status), data, notes)
    return made


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
