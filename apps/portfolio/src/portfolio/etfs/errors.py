"""Every exception of the ETF prices.

::

    PricesError               (a TasktrailError)
    ├── SourceDown            the source did not answer; worth another attempt
    ├── BadAnswer             the source answered, but not with prices; worth another attempt
    ├── MissingRate           an exchange rate is not stored yet; worth another attempt
    ├── UnknownEtf            the source knows no ETF of that symbol         (also GiveUp)
    ├── UnknownExchange       no calendar is known for the ETF's exchange    (also GiveUp)
    ├── HistoryBegins         the range is older than the bundled history    (also GiveUp)
    ├── HistoryEnds           the range is newer than the bundled history    (also GiveUp)
    ├── HistoryUnreadable     the bundled history is missing or damaged      (also GiveUp)
    └── SourceNotInstalled    the source needs a package that is not there   (also GiveUp)

What is not worth another attempt is a :class:`tasktrail.GiveUp` too, so that the tracked job
fails at once. The others carry ``retry_after``: the seconds to wait before the next attempt, or None
where the retry policy decides alone. A wrong argument is an :class:`tasktrail.InvalidField`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path

from tasktrail import GiveUp, TasktrailError


class PricesError(TasktrailError):
    """The prices of an ETF could not be had.

    Attributes:
        retry_after: seconds to wait before the next attempt; None where nobody said.
    """

    retry_after: float | None = None


class SourceDown(PricesError):
    """The source of the prices did not answer.

    Attributes:
        source: what was asked, e.g. "Yahoo, MTUM".
        reason: what happened, e.g. "not answered within 60 s".
        retry_after: seconds for which to leave the source alone; None where nobody said.
    """

    def __init__(self, source: str, reason: str, retry_after: float | None = None) -> None:
        self.source = source
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(f"{source}: {reason}")


class BadAnswer(PricesError):
    """The source answered with something that is not a list of prices.

    Attributes:
        source: what was asked, e.g. "Yahoo, MTUM".
        reason: the first thing found wrong.
    """

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        self.reason = reason
        super().__init__(f"{source}: {reason}")


class MissingRate(PricesError):
    """An exchange rate that the ECB published is not stored yet.

    Attributes:
        currency: the currency whose rates are missing.
        days: the publication days without a stored rate, oldest first: what an exchange-rate update would
            have to fetch.
    """

    def __init__(self, currency: str, days: Iterable[date]) -> None:
        self.currency = currency
        self.days = tuple(sorted(set(days)))
        others = len(self.days) - 1
        more = f" and {others} more {'day' if others == 1 else 'days'}" if others else ""
        super().__init__(f"no exchange rate of {currency} is stored for {self.days[0]}{more}")


class UnknownEtf(PricesError, GiveUp):
    """The source knows no ETF of that symbol.

    Attributes:
        source: what was asked, e.g. "bundled".
        symbol: the symbol asked for.
    """

    def __init__(self, source: str, symbol: str) -> None:
        self.source = source
        self.symbol = symbol
        super().__init__(f"{source} knows no ETF with the symbol {symbol}")


class UnknownExchange(PricesError, GiveUp):
    """No calendar is known for the exchange, so nobody could say which days are missing.

    Attributes:
        symbol: the ETF.
        exchange: the exchange in the words of the source, e.g. "STO".
    """

    def __init__(self, symbol: str, exchange: str) -> None:
        self.symbol = symbol
        self.exchange = exchange
        super().__init__(f"{symbol} is quoted on {exchange!r}, an exchange whose calendar is not known here")


class HistoryBegins(PricesError, GiveUp):
    """The bundled history begins after that range, and asking again will not lengthen it.

    Attributes:
        end: last day asked for.
        first: the first day the file holds.
    """

    def __init__(self, end: date, first: date) -> None:
        self.end = end
        self.first = first
        super().__init__(
            f"the bundled history begins at {first}, so it has no prices up to {end}: use the live source"
        )


class HistoryEnds(PricesError, GiveUp):
    """The bundled history ends before that range, and asking again will not lengthen it.

    Attributes:
        start: first day asked for.
        last: the last day the file holds.
    """

    def __init__(self, start: date, last: date) -> None:
        self.start = start
        self.last = last
        super().__init__(
            f"the bundled history ends at {last}, so it has no prices from {start} on: use the live source"
        )


class HistoryUnreadable(PricesError, GiveUp):
    """The bundled history is missing or damaged, and asking again will not repair it.

    Attributes:
        path: the file.
        reason: the first thing found wrong.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"the bundled history cannot be read: {reason} ({path})")


class SourceNotInstalled(PricesError, GiveUp):
    """The source needs a package that is not installed.

    Attributes:
        source: the source, e.g. "yahoo".
        extra: the optional dependency of the application that brings it.
    """

    def __init__(self, source: str, extra: str) -> None:
        self.source = source
        self.extra = extra
        super().__init__(
            f"the source {source} needs the optional dependency {extra}: install portfolio[{extra}]"
        )
