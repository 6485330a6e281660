"""On which days an exchange trades, and when a day's prices are final.

The holidays come from the package ``holidays``, which the exchange rates use too: it is maintained (a
release a month), typed, and weighs 9 MB without pandas, where ``exchange_calendars`` and
``pandas_market_calendars`` are untyped and bring more than 100 MB. Its days were held against
``exchange_calendars`` 4.13: for the exchanges below, from the first day named there until 2027-06-30,
they are the same. A test holds New York's against the 2,264 days of the bundled history; there is no
exception, unscheduled closings such as the day of mourning on 2018-12-05 included.

A day on which an exchange closes early is a trading day like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import holidays

from portfolio.etfs.fields import check_day, check_range
from tasktrail import InvalidField

NEW_YORK = "XNYS"
"""The calendar of every US exchange: NYSE, NYSE Arca, Nasdaq and Cboe keep the same holidays."""

SETTLING = timedelta(minutes=30)
"""How long after the closing auction a day's price is taken for final: quotes lag by up to 20 minutes."""

_SATURDAY = 5


@dataclass(frozen=True, slots=True)
class _Exchange:
    zone: ZoneInfo
    close: time
    """When the closing auction is over at the latest, on the clock of the zone."""
    first_day: date
    """The first day for which the calendar is known to be right."""


_EXCHANGES = {
    # The day on which the first ETF began to trade in the United States.
    NEW_YORK: _Exchange(ZoneInfo("America/New_York"), time(16, 0), date(1993, 1, 29)),
    # Where the package begins, and for Milan where it begins to be right.
    "XAMS": _Exchange(ZoneInfo("Europe/Amsterdam"), time(17, 40), date(2019, 1, 1)),
    "XETR": _Exchange(ZoneInfo("Europe/Berlin"), time(17, 40), date(2016, 1, 1)),
    "XLON": _Exchange(ZoneInfo("Europe/London"), time(16, 40), date(2000, 1, 4)),
    "XMIL": _Exchange(ZoneInfo("Europe/Rome"), time(17, 40), date(2023, 1, 1)),
    "XPAR": _Exchange(ZoneInfo("Europe/Paris"), time(17, 40), date(2019, 1, 1)),
    "XSWX": _Exchange(ZoneInfo("Europe/Zurich"), time(17, 40), date(2000, 1, 4)),
}

CALENDARS = frozenset(_EXCHANGES)
"""The calendars that are known, each by the MIC of its exchange (ISO 10383)."""


_SUFFIXES = {"AS": "XAMS", "DE": "XETR", "L": "XLON", "MI": "XMIL", "PA": "XPAR", "SW": "XSWX"}
"""What Yahoo puts behind the symbols of an exchange; those of the US exchanges stand alone."""


def calendar_of(symbol: str) -> str:
    """Return the calendar that an ETF most likely keeps, going by its symbol.

    Good enough to decide whether it is worth asking a source, which then says which calendar it is.

    Args:
        symbol: e.g. "MTUM" or "EUNL.DE".
    """
    return _SUFFIXES.get(symbol.rpartition(".")[2], NEW_YORK) if "." in symbol else NEW_YORK


def trading_days(start: date, end: date, calendar: str = NEW_YORK) -> list[date]:
    """Return the days on which the exchange trades, oldest first.

    Days before :func:`first_day` are left out: to call a holiday of 1998 a missing day would be worse
    than not to miss a trading day.

    Args:
        start: first day.
        end: last day, which belongs to the range. It may lie in the future.
        calendar: one of ``CALENDARS``.

    Raises:
        InvalidField: ``start`` or ``end`` is not a plain date, they are in the wrong order, or the calendar
            is not known.
    """
    check_range(start, end)
    day = max(start, first_day(calendar))
    every_day = (day + timedelta(days=n) for n in range((end - day).days + 1))
    return [day for day in every_day if why_it_is_closed(day, calendar) is None]


def missing_dates(expected: Iterable[date], present: Collection[date]) -> list[date]:
    """Return the days that were expected and are not there, oldest first.

    Args:
        expected: trading days.
        present: days that have a price; a mapping from day to price will do.
    """
    return sorted({day for day in expected if day not in present})


def why_it_is_closed(day: date, calendar: str = NEW_YORK) -> str | None:
    """Return why the exchange does not trade on ``day``, or None if it does.

    Args:
        day: any day. Before :func:`first_day` only the weekends are sure.
        calendar: one of ``CALENDARS``.

    Returns:
        A sentence without a full stop, e.g. "2022-12-24 is a Saturday" or "2014-04-18 is Good Friday, a
        holiday of XNYS"; or None.

    Raises:
        InvalidField: ``day`` is not a plain date, or the calendar is not known.
    """
    check_day("day", day)
    if day.weekday() >= _SATURDAY:
        return f"{day} is a {'Saturday' if day.weekday() == _SATURDAY else 'Sunday'}"
    holiday = _holidays(calendar).get(day) if day >= first_day(calendar) else None
    return f"{day} is {holiday}, a holiday of {calendar}" if holiday else None


def first_day(calendar: str = NEW_YORK) -> date:
    """Return the first day for which the calendar is known to be right.

    Args:
        calendar: one of ``CALENDARS``.

    Raises:
        InvalidField: the calendar is not known.
    """
    return _exchange(calendar).first_day


def final_at(day: date, calendar: str = NEW_YORK) -> datetime:
    """Return when the prices of ``day`` are final, in UTC; until then a price is only the latest one.

    Args:
        day: a trading day. On one with an early close the prices are final some hours sooner, and this
            says the usual time.
        calendar: one of ``CALENDARS``.

    Raises:
        InvalidField: ``day`` is not a plain date, or the calendar is not known.
    """
    check_day("day", day)
    exchange = _exchange(calendar)
    return datetime.combine(day, exchange.close, exchange.zone).astimezone(UTC) + SETTLING


def newest_final_day(now: datetime, calendar: str = NEW_YORK) -> date:
    """Return the newest trading day whose prices are final.

    Args:
        now: the time, with a time zone.
        calendar: one of ``CALENDARS``.

    Raises:
        InvalidField: ``now`` has no time zone, or the calendar is not known.
    """
    if now.tzinfo is None:
        raise InvalidField("now", now, "a time needs a time zone")
    day = now.astimezone(_exchange(calendar).zone).date()
    while why_it_is_closed(day, calendar) or now < final_at(day, calendar):
        day -= timedelta(days=1)
    return day


def _exchange(calendar: str) -> _Exchange:
    try:
        return _EXCHANGES[calendar]
    except (KeyError, TypeError):
        known = ", ".join(sorted(CALENDARS))
        raise InvalidField("calendar", calendar, f"it is not known; known are {known}") from None


@cache
def _holidays(calendar: str) -> holidays.HolidayBase:
    _exchange(calendar)
    return holidays.financial_holidays(calendar)
