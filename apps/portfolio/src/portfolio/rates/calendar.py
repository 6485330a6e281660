"""When the European Central Bank publishes exchange rates, and when it does not.

The rule: "the reference rates are usually updated around 16:00 CET on every working day, except on
TARGET closing days" (ECB, Euro foreign exchange reference rates). The closing days come from the
package ``holidays``; its sources are the ECB's decisions of 1998-09-03 (1999: New Year and Christmas
only), 1999-07-15 (2000: also Good Friday, Easter Monday, 1 May, 26 December), 2000-05-25 (2001: also
31 December) and 2000-12-14 (from 2002 on). A test holds them against every day the ECB did publish
since 1999; there is no exception.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import holidays

from tasktrail import InvalidField

FIRST_DAY = date(1999, 1, 4)
"""The day of the first reference rates; the euro began on 1999-01-01, a TARGET closing day."""

FRANKFURT = ZoneInfo("Europe/Berlin")
"""Where the ECB's clock hangs. It says CET and means local time: CEST in summer."""

PUBLICATION_TIME = time(16, 0)
"""When the rates of a day are usually there, in Frankfurt."""

_SATURDAY = 5
_SUNDAY = 6
_MARKET = "XECB"
_ADDITIONAL_CLOSING_DAY = "Additional closing day"


def why_nothing_is_published(day: date) -> str | None:
    """Return why the ECB publishes no rates for ``day``, or None if it is a publication day.

    A day in the future is judged like any other; see :func:`is_in_the_future`.

    Args:
        day: any day.

    Returns:
        A sentence without a full stop, e.g. "2026-10-24 is a Saturday" or "2026-12-25 is Christmas Day,
        a TARGET holiday"; or None.

    Raises:
        InvalidField: ``day`` is not a plain date.
    """
    check_day(day)
    if day < FIRST_DAY:
        return f"{day} is before {FIRST_DAY}, the day of the first reference rates"
    if day.weekday() == _SATURDAY:
        return f"{day} is a Saturday"
    if day.weekday() == _SUNDAY:
        return f"{day} is a Sunday"
    holiday = _closing_days().get(day)
    if holiday == _ADDITIONAL_CLOSING_DAY:
        return f"{day} is an additional closing day of TARGET"
    if holiday:
        return f"{day} is {holiday}, a TARGET holiday"
    return None


def is_in_the_future(day: date, now: datetime) -> bool:
    """Return whether ``day`` has not begun anywhere on earth.

    Tomorrow in Frankfurt does not count: it is today already in Auckland, whose users may well ask for
    it, and a clock that is a little fast at midnight must not fail a job for good.

    Args:
        day: any day.
        now: the time, with a time zone.

    Raises:
        InvalidField: ``day`` is not a plain date, or ``now`` has no time zone.
    """
    check_day(day)
    return (day - today(now)).days > 1


def today(now: datetime) -> date:
    """Return the day it is in Frankfurt.

    Args:
        now: the time, with a time zone.

    Raises:
        InvalidField: ``now`` has no time zone.
    """
    if now.tzinfo is None:
        raise InvalidField("now", now, "a time needs a time zone")
    return now.astimezone(FRANKFURT).date()


def publication_time(day: date) -> datetime:
    """Return when the rates of ``day`` are usually published, in UTC.

    Args:
        day: a publication day; for another day, when they would have been published.
    """
    return datetime.combine(day, PUBLICATION_TIME, FRANKFURT).astimezone(UTC)


def newest_published_day(now: datetime) -> date:
    """Return the newest day whose rates should be out.

    Args:
        now: the time, with a time zone.

    Raises:
        InvalidField: ``now`` has no time zone, or lies before the first publication.
    """
    day = today(now)
    if now < publication_time(FIRST_DAY):
        raise InvalidField("now", now, f"the first reference rates were published on {FIRST_DAY}")
    while why_nothing_is_published(day) or now < publication_time(day):
        day -= timedelta(days=1)
    return day


def check_day(day: object) -> None:
    """Refuse what is not a plain date.

    Args:
        day: what was given as a day.

    Raises:
        InvalidField: it is not a date, or it is a datetime, which Python takes for a date but which
            equals none.
    """
    if not isinstance(day, date) or isinstance(day, datetime):
        raise InvalidField("day", day, "a date without a time is needed")


@cache
def _closing_days() -> holidays.HolidayBase:
    return holidays.financial_holidays(_MARKET)
