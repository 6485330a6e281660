"""Which days of a range have rates to be fetched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from portfolio.rates.calendar import FIRST_DAY, newest_published_day, why_nothing_is_published
from tasktrail import InvalidField


@dataclass(frozen=True, slots=True)
class Backfill:
    """The days of a range.

    Attributes:
        days: those for which the ECB has published rates, oldest first.
        without: how many have none and never will: weekends, TARGET holidays, before the first rates.
        to_come: how many are later than the newest rates.
    """

    days: tuple[date, ...]
    without: int
    to_come: int


def plan_backfill(first: date, last: date, now: datetime) -> Backfill:
    """Sort the days of a range.

    Args:
        first: its first day.
        last: its last day.
        now: the time, with a time zone.

    Raises:
        InvalidField: the range ends before it starts.
    """
    if first > last:
        raise InvalidField("from", str(first), f"is after the end of the range, {last}")
    newest = newest_published_day(now)
    start, end = first.toordinal(), last.toordinal() + 1
    past = range(max(start, FIRST_DAY.toordinal()), min(end, newest.toordinal() + 1))
    days = tuple(day for day in map(date.fromordinal, past) if why_nothing_is_published(day) is None)
    to_come = max(0, end - max(start, newest.toordinal() + 1))
    return Backfill(days, end - start - len(days) - to_come, to_come)
