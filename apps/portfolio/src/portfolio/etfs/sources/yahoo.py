"""Yahoo Finance, by way of the package ``yfinance``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal

from portfolio.etfs.calendar import NEW_YORK, final_at, first_day, why_it_is_closed
from portfolio.etfs.errors import BadAnswer, SourceDown, UnknownExchange
from portfolio.etfs.fields import check_range, check_symbol
from portfolio.etfs.sources.download import Answer, Download, YfinanceDownload
from portfolio.etfs.sources.figures import NotAPrice, price_of
from portfolio.etfs.sources.protocol import EtfInfo, PriceSeries, Rejected

DEADLINE = 90.0
"""Longest time for one answer, in seconds: yfinance may ask four times, for 10 to 30 seconds each."""

_CURRENCY = re.compile(r"[A-Z]{3}")

_MINOR_UNITS = {"GBp": ("GBP", 2), "ILA": ("ILS", 2), "ZAc": ("ZAR", 2)}
"""The currencies Yahoo makes up for prices in pence, agorot and cents, with the decimals they are off by."""

_CALENDARS = {
    **dict.fromkeys(("ASE", "BTS", "NCM", "NGM", "NMS", "NYQ", "PCX"), NEW_YORK),
    "AMS": "XAMS",
    "EBS": "XSWX",
    "GER": "XETR",
    "LSE": "XLON",
    "MIL": "XMIL",
    "PAR": "XPAR",
}
"""What Yahoo calls the exchanges whose calendars are known here."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class YahooPrices:
    """Asks Yahoo for the closing prices that were paid, without taking dividends out of them.

    Prices adjusted for dividends change for all the past with every dividend, so that stored ones would
    turn wrong every quarter. Splits are another matter: after one, Yahoo divides the whole past by it, and
    what was stored before has to be fetched again.

    The price of a day that is not over is only the latest one. It is rejected, and with it every figure that
    is no price and every price of a day on which the exchange was closed: Yahoo repeats the day before on
    some of them.

    Args:
        download: asks Yahoo, in a thread of its own.
        deadline: longest time for one answer, in seconds. The thread cannot be stopped; it ends by the
            time limits of its requests.
        clock: tells the time, with a time zone.
    """

    name = "yahoo"

    def __init__(
        self,
        download: Download | None = None,
        *,
        deadline: float = DEADLINE,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._download = download or YfinanceDownload()
        self._deadline = deadline
        self._clock = clock

    async def fetch(self, symbol: str, start: date, end: date) -> PriceSeries:
        """Return the daily closing prices of one ETF.

        Args:
            symbol: as Yahoo has it, e.g. "MTUM" or "EUNL.DE".
            start: first day.
            end: last day, which belongs to the range.

        Raises:
            InvalidField: ``symbol``, ``start`` or ``end`` is not acceptable; Yahoo is not asked.
            SourceDown: Yahoo cannot be reached, is too slow, or asks to be left alone.
            BadAnswer: it answers anything but prices of that ETF.
            UnknownEtf: it says that there is no such symbol.
            UnknownExchange: it names an exchange whose calendar is not known here.
            SourceNotInstalled: the optional dependency is not there.
        """
        check_symbol(symbol)
        check_range(start, end)
        answer = await self._ask(symbol, start, end)
        currency, minor_units = _currency(symbol, answer)
        calendar = _calendar(symbol, answer)
        prices: dict[date, Decimal] = {}
        rejected: list[Rejected] = []
        now = self._clock()
        for day, figures in sorted(_by_day(answer.rows, start, end).items()):
            try:
                _check_day(day, calendar, now)
                prices[day] = _only(price_of(figure, minor_units) for figure in figures)
            except NotAPrice as error:
                rejected.append(Rejected(day, str(error)))
        return PriceSeries(symbol, currency, prices, tuple(rejected))

    async def info(self, symbol: str) -> EtfInfo:
        """Return the name of one ETF, its currency, its exchange's calendar and its first day.

        Yahoo does not say the ISIN.

        Args:
            symbol: as Yahoo has it.

        Raises:
            InvalidField: ``symbol`` is not acceptable; Yahoo is not asked.
            SourceDown: Yahoo cannot be reached, is too slow, or asks to be left alone.
            BadAnswer: it answers anything but facts about that ETF.
            UnknownEtf: it says that there is no such symbol.
            UnknownExchange: it names an exchange whose calendar is not known here.
            SourceNotInstalled: the optional dependency is not there.
        """
        check_symbol(symbol)
        answer = await self._ask(symbol)
        name = answer.facts.get("longName") or answer.facts.get("shortName")
        if not isinstance(name, str):
            raise BadAnswer(_source(symbol), "it does not say the name")
        return EtfInfo(
            symbol=symbol,
            name=name,
            currency=_currency(symbol, answer)[0],
            isin=None,
            calendar=_calendar(symbol, answer),
            first_day=answer.first_day,
        )

    async def _ask(self, symbol: str, start: date | None = None, end: date | None = None) -> Answer:
        try:
            async with asyncio.timeout(self._deadline):
                answer = await asyncio.to_thread(self._download, symbol, start, end)
        except TimeoutError as error:
            raise SourceDown(_source(symbol), f"not answered within {self._deadline:g} s") from error
        if answer.facts.get("symbol") != symbol:
            raise BadAnswer(_source(symbol), f"the answer is about {answer.facts.get('symbol')!r}")
        return answer


def _source(symbol: str) -> str:
    return f"Yahoo, {symbol}"


def _currency(symbol: str, answer: Answer) -> tuple[str, int]:
    """Return the currency, and by how many decimals the unit of the figures is smaller."""
    currency = answer.facts.get("currency")
    if not isinstance(currency, str):
        raise BadAnswer(_source(symbol), "it does not say the currency")
    major, minor_units = _MINOR_UNITS.get(currency, (currency, 0))
    if not _CURRENCY.fullmatch(major):
        raise BadAnswer(_source(symbol), f"{currency[:40]!r} is not a currency")
    return major, minor_units


def _calendar(symbol: str, answer: Answer) -> str:
    exchange = str(answer.facts.get("exchangeName"))
    if exchange not in _CALENDARS:
        raise UnknownExchange(symbol, exchange[:40])
    return _CALENDARS[exchange]


def _by_day(rows: Iterable[tuple[date, object]], start: date, end: date) -> dict[date, list[object]]:
    # Yahoo is known to append the latest price to a range that ended long ago.
    figures: dict[date, list[object]] = {}
    for day, figure in rows:
        if start <= day <= end:
            figures.setdefault(day, []).append(figure)
    return figures


def _check_day(day: date, calendar: str, now: datetime) -> None:
    if day >= first_day(calendar) and (why := why_it_is_closed(day, calendar)):
        raise NotAPrice(why)
    if now < (final := final_at(day, calendar)):
        raise NotAPrice(f"the price is not final before {final:%Y-%m-%d %H:%M} UTC")


def _only(prices: Iterable[Decimal]) -> Decimal:
    first, *others = set(prices)
    if others:
        raise NotAPrice("there are several prices")
    return first
