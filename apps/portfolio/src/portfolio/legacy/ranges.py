"""Which days, times and numbers a legacy row may hold; all others are mistakes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Final, TypeGuard

FIRST_DAY: Final = date(1990, 1, 1)
LAST_DAY: Final = date(2099, 12, 31)
FIRST_MOMENT: Final = datetime(1990, 1, 1)
END_OF_TIME: Final = datetime(2100, 1, 1)

INT_LIMIT: Final = 2**31
MOST_RETRIES: Final = 1000


def is_good_day(day: object) -> TypeGuard[date]:
    """Return whether a value of a date column is a day that the old system can have meant.

    Args:
        day: what the column holds; ``infinity`` is no ``date`` in Python.
    """
    return isinstance(day, date) and not isinstance(day, datetime) and FIRST_DAY <= day <= LAST_DAY


def is_good_time(moment: object) -> TypeGuard[datetime]:
    """Return whether a value of a timestamp column is a time at which the old system can have written.

    Args:
        moment: what the column holds, without a time zone; ``infinity`` is no ``datetime`` in Python.
    """
    return isinstance(moment, datetime) and moment.tzinfo is None and FIRST_MOMENT <= moment < END_OF_TIME


def as_utc(moment: datetime) -> datetime:
    """Return a naive time of the old system as the moment it was: its clocks ran in UTC."""
    return moment.replace(tzinfo=UTC)


def start_of(day: date) -> datetime:
    """Return when a day began by the clocks of the old system, without a time zone like its other times."""
    return datetime.combine(day, time.min)


def fits_int(number: object) -> TypeGuard[int]:
    """Return whether a number fits a column of the type INTEGER."""
    return _is_whole(number) and -INT_LIMIT <= number < INT_LIMIT


def is_good_retry_count(number: object) -> TypeGuard[int]:
    """Return whether a number of retries is one that the old system can have counted."""
    return _is_whole(number) and 0 <= number <= MOST_RETRIES


def _is_whole(number: object) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool)
