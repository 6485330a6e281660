"""Asks Yahoo through the package ``yfinance``, an optional dependency, and tells its errors apart.

``yfinance`` 1.7 imitates a browser, since Yahoo turns other programs away, and returns a pandas table.
What is in the way here, each found in its source and by feeding it answers:

- ``yfinance.download`` logs errors and returns an empty table, which looks like a weekend. ``Ticker``
  does the same until it is told otherwise.
- An unknown symbol, a block and a passing fault all end in "possibly delisted; no timezone found". Only
  a question without dates brings Yahoo's own words.
- Answers about the past are kept in the process, bad ones too: the next attempt would read them again.
- Nothing is typed, so whatever comes out is checked here or by the caller.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from http import HTTPStatus
from typing import Any

from portfolio.etfs.errors import (
    BadAnswer,
    PricesError,
    SourceDown,
    SourceNotInstalled,
    UnknownEtf,
)

EXTRA = "yfinance"
"""The optional dependency of the application that brings the package."""

TIMEOUT = 10.0
"""Longest time for one request for prices, in seconds."""

RATE_LIMIT_PAUSE = 900.0
"""How long to leave Yahoo alone, in seconds, when it says "too many requests"; it does not say how long."""

_FACTS = ("symbol", "currency", "exchangeName", "longName", "shortName")
_NOT_FOUND = "No data found, symbol may be delisted"


@dataclass(frozen=True, slots=True)
class Answer:
    """What Yahoo says about one symbol, in plain words.

    Attributes:
        rows: day and closing price, as they come: the price may be anything.
        facts: Yahoo's own names and values, e.g. ``{"symbol": "MTUM", "currency": "USD"}``.
        first_day: the first day of which Yahoo has prices, where it says so.
    """

    rows: Sequence[tuple[date, object]] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    first_day: date | None = None


Download = Callable[[str, date | None, date | None], Answer]
"""Asks for a symbol, the first and the last day; without days, for the facts alone. It may block."""


class YfinanceDownload:
    """Asks Yahoo with ``yfinance``, which is imported with the first question.

    Args:
        session: makes the requests, a session of ``curl_cffi`` or ``requests``; by default the one of
            yfinance.
    """

    def __init__(self, session: object | None = None) -> None:
        self._session = session

    def __call__(self, symbol: str, start: date | None = None, end: date | None = None) -> Answer:
        """Return what Yahoo says. Blocks for some seconds, and for a minute or two at worst.

        Args:
            symbol: as Yahoo has it.
            start: first day; None for the facts alone.
            end: last day, which belongs to the range; None for the facts alone.

        Raises:
            SourceDown: Yahoo cannot be reached, or asks to be left alone.
            BadAnswer: it answers anything but a table of prices.
            UnknownEtf: it says that there is no such symbol.
            SourceNotInstalled: the package is not there.
        """
        yfinance = _imported()
        try:
            return self._ask(yfinance, symbol, start, end)
        except PricesError:
            raise
        # Its errors have no common base: it raises its own, those of curl, requests, json, sqlite and
        # pandas, and a KeyError or TypeError where an answer has another form than expected.
        except Exception as error:
            raise _translated(yfinance, symbol, error) from error

    def _ask(self, yfinance: Any, symbol: str, start: date | None, end: date | None) -> Answer:
        yfinance.data.YfData.cache_get.cache_clear()
        ticker = yfinance.Ticker(symbol, session=self._session)
        if start is None or end is None:
            self._history(ticker, period="5d")
            return _answer(ticker)
        try:
            table = self._history(ticker, start=start, end=end + timedelta(days=1))
        except yfinance.exceptions.YFTzMissingError:
            self._history(ticker, period="5d")
            raise
        except yfinance.exceptions.YFPricesMissingError as error:
            if not _has_nothing_in_range(error.yahoo_reason):
                raise
            self._history(ticker, period="5d")
            return _answer(ticker)
        return _answer(ticker, rows_of(_source(symbol), table))

    def _history(self, ticker: Any, **question: object) -> Any:
        return ticker.history(
            interval="1d", auto_adjust=False, actions=False, keepna=True, timeout=TIMEOUT, **question
        )


def rows_of(source: str, table: Any) -> list[tuple[date, object]]:
    """Return day and closing price of each row of a pandas table.

    Args:
        source: where it comes from, for the error.
        table: a table with a column "Close" and an index of times in the zone of the exchange.

    Raises:
        BadAnswer: it is no such table.
    """
    if "Close" not in table:
        found = ", ".join(map(str, table))[:200] or "nothing"
        raise BadAnswer(source, f"there is no closing price in it, but {found}")
    rows = []
    for time, figure in table["Close"].items():
        day = time.date() if isinstance(time, datetime) else None
        if type(day) is not date:  # a missing time of pandas is a datetime, and its own date
            raise BadAnswer(source, f"{time!r} is not a time")
        rows.append((day, figure))
    return rows


def _answer(ticker: Any, rows: Sequence[tuple[date, object]] = ()) -> Answer:
    said = ticker.history_metadata
    first = said.get("firstTradeDate")
    return Answer(
        rows=rows,
        facts={name: said[name] for name in _FACTS if name in said},
        first_day=first.date() if isinstance(first, datetime) else None,
    )


def _has_nothing_in_range(said: str | None) -> bool:
    # Without a word for a weekend or a holiday, with these words for days before the first and, on some
    # mornings, for today.
    return said is None or said.startswith("Data doesn't exist for startDate")


def _imported() -> Any:
    try:
        yfinance = importlib.import_module("yfinance")
    except ImportError as error:
        raise SourceNotInstalled("yahoo", EXTRA) from error
    # Or it would log what went wrong, and return an empty table.
    yfinance.config.debug.hide_exceptions = False
    return yfinance


def _translated(yfinance: Any, symbol: str, error: Exception) -> PricesError:
    source, known = _source(symbol), yfinance.exceptions
    said = f"{type(error).__name__} {error}".rstrip()
    if isinstance(error, known.YFRateLimitError):
        return SourceDown(source, said, RATE_LIMIT_PAUSE)
    if getattr(error, "yahoo_reason", None) == _NOT_FOUND or _is_not_found(error):
        return UnknownEtf("Yahoo", symbol)
    if isinstance(error, known.YFDataException):
        return SourceDown(source, said)
    # A body that is no JSON is a ValueError, and with requests an OSError besides.
    if isinstance(error, OSError) and not isinstance(error, ValueError):
        return SourceDown(source, said)
    return BadAnswer(source, said)


def _is_not_found(error: Exception) -> bool:
    # The first two times in a process that Yahoo does not say the zone of a symbol, yfinance looks it up
    # in the quotes, and there a symbol that nobody knows is an HTTP 404.
    return getattr(getattr(error, "response", None), "status_code", None) == HTTPStatus.NOT_FOUND


def _source(symbol: str) -> str:
    return f"Yahoo, {symbol}"
