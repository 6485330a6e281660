"""Whether a daily update is due, and for which days; pure.

A day whose data are not out yet asks for nothing. On a weekend or a holiday there is nothing new, so the
update waits for the next day on which there is, unless the newest data are older than ``STALE_AFTER`` days:
then something went wrong before. Otherwise every day between the newest data and the day is wanted, however
long nobody looked, and so are the days of the last week that were left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

STALE_AFTER = 3
"""Age of the newest data, in days, up to which a weekend or a holiday is left alone."""

FIRST_FETCH = 30
"""How many days are fetched when there are no data at all."""

LOOK_BACK = 7
"""How many days back days that were left out are looked for, e.g. because their update failed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one kind of data up to the day of an update.

    Attributes:
        newest: the newest day that has data; None if there are none.
        recent: the days of the last ``LOOK_BACK`` days that have data.
    """

    newest: date | None
    recent: Collection[date] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a daily update has to do.

    Attributes:
        days: the days to fetch, oldest first; empty when nothing is due.
        reason: why, for people.
        ranges: the same days as ranges, each with its first and last day; no day that has data is in one.
    """

    days: tuple[date, ...]
    reason: str
    ranges: tuple[tuple[date, date], ...] = ()


def decide(
    day: date, stored: Stored, *, newest_out: date, why_none: Callable[[date], str | None]
) -> Decision:
    """Decide whether an update is due.

    Args:
        day: the day of the update.
        stored: what is stored up to that day.
        newest_out: the newest day whose data are out by now.
        why_none: says why a day never has any data, e.g. "2026-10-24 is a Saturday", or None if it does.
    """
    newest = stored.newest
    closed = why_none(day)
    if closed and newest is not None and (day - newest).days <= STALE_AFTER:
        return Decision((), f"{closed}; the newest data are those of {newest}")
    last = min(day, newest_out)
    if newest is None:
        first = last - timedelta(days=FIRST_FETCH - 1)
    else:
        first = min(newest, day - timedelta(days=LOOK_BACK)) + timedelta(days=1)
    days = tuple(
        candidate
        for candidate in (first + timedelta(days=n) for n in range((last - first).days + 1))
        if candidate != newest and candidate not in stored.recent and why_none(candidate) is None
    )
    if not days:
        return Decision((), _why_not(day, last, closed))
    since = f"the newest data are those of {newest}" if newest else "there are no data yet"
    reason = f"{since}; {_listed(days)} {'is' if len(days) == 1 else 'are'} missing"
    return Decision(days, reason, tuple(_ranges(days, stored.recent)))


def _ranges(days: tuple[date, ...], stored: Collection[date]) -> Iterator[tuple[date, date]]:
    first = last = days[0]
    for day in days[1:]:
        if any(last < there < day for there in stored):
            yield first, last
            first = day
        last = day
    yield first, last


def _why_not(day: date, last: date, closed: str | None) -> str:
    if closed:
        return f"{closed}; everything up to it is there already"
    if last < day:
        return f"the data of {day} are not out yet; everything before them is there already"
    return f"the data of {day} are there already"


def _listed(days: tuple[date, ...]) -> str:
    if len(days) == 1:
        return str(days[0])
    return f"{len(days)} days from {days[0]} to {days[-1]}"
