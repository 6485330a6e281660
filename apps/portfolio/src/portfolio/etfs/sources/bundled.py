"""The price history that the application ships: real prices without a network."""

from __future__ import annotations

from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path

from portfolio.etfs.calendar import NEW_YORK
from portfolio.etfs.errors import BadAnswer, HistoryBegins, HistoryEnds, HistoryUnreadable, UnknownEtf
from portfolio.etfs.fields import check_range, check_symbol
from portfolio.etfs.sources.protocol import EtfInfo, PriceSeries
from portfolio.etfs.sources.table import Column, PriceTable, read_table

_CURRENCY = "USD"

_KNOWN = {
    "MTUM": ("iShares MSCI USA Momentum Factor ETF", "US46432F3964"),
    "QUAL": ("iShares MSCI USA Quality Factor ETF", "US46432F3394"),
    "SIZE": ("iShares MSCI USA Size Factor ETF", "US46432F3709"),
    "USMV": ("iShares MSCI USA Min Vol Factor ETF", "US46429B6974"),
    "VLUE": ("iShares MSCI USA Value Factor ETF", "US46432F3881"),
}


class BundledPrices:
    """Answers from a file: five ETFs in US dollars, 2014-01-02 to 2022-12-28.

    The prices are adjusted for dividends; ATTRIBUTION.md beside the file says what that means and where they
    come from. The file is read once per process, when it is first needed.

    Args:
        path: another file of the same form, with prices in US dollars.
    """

    name = "bundled"

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    async def fetch(self, symbol: str, start: date, end: date) -> PriceSeries:
        """Return the daily prices of one ETF.

        No answer of a file changes by asking again, so every failure is final.

        Args:
            symbol: the ETF.
            start: first day.
            end: last day, which belongs to the range. It may be after the last day of the file.

        Raises:
            InvalidField: ``symbol``, ``start`` or ``end`` is not acceptable.
            UnknownEtf: the file does not have it.
            HistoryBegins: the whole range is before the file.
            HistoryEnds: the whole range is after the file.
            HistoryUnreadable: the file is missing or damaged.
        """
        check_symbol(symbol)
        check_range(start, end)
        table = self._table()
        column = self._column(table, symbol)
        if end < table.first:
            raise HistoryBegins(end, table.first)
        if start > table.last:
            raise HistoryEnds(start, table.last)
        return PriceSeries(
            symbol=symbol,
            currency=_CURRENCY,
            prices={day: price for day, price in column.prices.items() if start <= day <= end},
            rejected=tuple(rejected for rejected in column.rejected if start <= rejected.day <= end),
        )

    async def info(self, symbol: str) -> EtfInfo:
        """Return the name and the ISIN of one ETF, and the first and last day of the file.

        Args:
            symbol: the ETF.

        Raises:
            InvalidField: ``symbol`` is not acceptable.
            UnknownEtf: the file does not have it.
            HistoryUnreadable: the file is missing or damaged.
        """
        check_symbol(symbol)
        table = self._table()
        self._column(table, symbol)
        name, isin = _KNOWN.get(symbol, (symbol, None))
        return EtfInfo(symbol, name, _CURRENCY, isin, NEW_YORK, table.first, table.last)

    def symbols(self) -> tuple[str, ...]:
        """Return the ETFs in the file, in its order.

        Raises:
            HistoryUnreadable: the file is missing or damaged.
        """
        return tuple(self._table().columns)

    def _table(self) -> PriceTable:
        return _table(self._path or _bundled_file())

    def _column(self, table: PriceTable, symbol: str) -> Column:
        try:
            return table.columns[symbol]
        except KeyError:
            raise UnknownEtf(self.name, symbol) from None


def _bundled_file() -> Path:
    return Path(str(files("portfolio.etfs") / "data" / "etf_prices_usd.csv"))


@cache
def _table(path: Path) -> PriceTable:
    try:
        return read_table(str(path), path.read_bytes())
    except OSError as error:
        raise HistoryUnreadable(path, error.strerror or str(error)) from error
    except BadAnswer as error:
        raise HistoryUnreadable(path, error.reason) from error
