"""What the answer of a source is worth: which of its prices may be stored, and which days are missing.

A source promises to return clean prices. Nothing is taken on its word: what is not plainly the price of a
trading day that was asked for and is over is rejected, and its day is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from portfolio.etfs.calendar import missing_dates, newest_final_day, trading_days, why_it_is_closed
from portfolio.etfs.conversion import LARGEST, PLACES
from portfolio.etfs.errors import BadAnswer
from portfolio.etfs.fields import check_day
from portfolio.etfs.request import UpdateRequest
from portfolio.etfs.sources import EtfInfo, PriceSeries, Rejected
from tasktrail import InvalidField

SHOWN = 10
"""How many rejected days the notes name."""

_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of asking a source for the prices of a range.

    Attributes:
        series: the prices that may be stored, oldest first, and the days whose figures were rejected.
        missing: the trading days that are over and for which no price came, oldest first.
        notes: what to know about it, for people; None if there is nothing.
    """

    series: PriceSeries
    missing: tuple[date, ...]
    notes: str | None


def examined(
    series: PriceSeries, info: EtfInfo, request: UpdateRequest, *, source: str, now: datetime
) -> Findings:
    """Return what an answer is worth.

    Args:
        series: the answer.
        info: what the source says about the ETF.
        request: what was asked for.
        source: name of the source, for errors and notes.
        now: the time, with a time zone.

    Raises:
        BadAnswer: it is about another ETF, in no currency or in another than the ETF's, or not by day.
    """
    who = f"{source}, {request.symbol}"
    if not isinstance(series, PriceSeries):
        raise BadAnswer(who, f"a series of prices was expected, it is of type {type(series).__name__}")
    if series.symbol != request.symbol:
        raise BadAnswer(who, f"the answer is about {series.symbol!r}")
    for day in series.prices:
        try:
            check_day("day", day)
        except InvalidField as error:
            raise BadAnswer(who, f"{day!r} is not a day") from error
    if not _CURRENCY.fullmatch(str(series.currency)):
        raise BadAnswer(who, f"{series.currency!r} is not a currency")
    if series.currency != info.currency:
        raise BadAnswer(who, f"its prices are in {series.currency}, its facts say {info.currency}")
    final = newest_final_day(now, info.calendar)
    prices: dict[date, Decimal] = {}
    rejected = list(series.rejected)
    for day, price in sorted(series.prices.items()):
        if why := _why_not(day, price, request, info.calendar, final):
            rejected.append(Rejected(day, why))
        else:
            prices[day] = price
    rejected.sort()
    clean = replace(series, prices=prices, rejected=tuple(rejected))
    missing = missing_dates(expected_days(info, request, now), prices)
    return Findings(clean, tuple(missing), "; ".join(_notes(clean, info, request, source)) or None)


def expected_days(info: EtfInfo, request: UpdateRequest, now: datetime) -> list[date]:
    """Return the days of a range for which a source should have prices, oldest first.

    Args:
        info: what the source says about the ETF: its exchange, and from when until when it has prices.
        request: what it is asked for.
        now: the time, with a time zone; days whose prices are not final are left out.
    """
    first = max(filter(None, (request.start_date, info.first_day)))
    last = min(filter(None, (request.end_date, info.last_day, newest_final_day(now, info.calendar))))
    return trading_days(first, last, info.calendar) if first <= last else []


def _why_not(day: date, price: object, request: UpdateRequest, calendar: str, final: date) -> str | None:
    """Return why a price may not be stored, or None if it may."""
    if not isinstance(price, Decimal) or not price.is_finite() or not PLACES <= price <= LARGEST:
        return f"{price!s:.40} is not a price"
    if price != price.quantize(PLACES):
        return f"{price!s:.40} has too many decimals"
    if not request.start_date <= day <= request.end_date:
        return "nobody asked for that day"
    if why := why_it_is_closed(day, calendar):
        return why
    return "the price is not final yet" if day > final else None


def _notes(series: PriceSeries, info: EtfInfo, request: UpdateRequest, source: str) -> Iterator[str]:
    if info.first_day is not None and request.start_date < info.first_day:
        yield f"{source} has no prices before {info.first_day}"
    if info.last_day is not None and request.end_date > info.last_day:
        yield f"{source} has no prices after {info.last_day}"
    for day, reason in series.rejected[:SHOWN]:
        yield f"rejected {day}: {reason}"
    if (more := len(series.rejected) - SHOWN) > 0:
        yield f"rejected {more} more"
