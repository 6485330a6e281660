"""Reads the bundled price table: days down, ETFs across.

::

    Date,MTUM,QUAL,SIZE,USMV,VLUE
    2014-01-02,52.704,48.351,48.986,29.338,47.054
    ...

A table that is damaged as a whole is refused: half a line, a line with a field too many, a day out of
order. A single figure that is no price, be it empty, NaN or negative, costs that ETF that day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from portfolio.etfs.errors import BadAnswer
from portfolio.etfs.fields import check_symbol
from portfolio.etfs.sources.figures import NotAPrice, read_day, read_price
from portfolio.etfs.sources.protocol import Rejected
from tasktrail import InvalidField


@dataclass(slots=True)
class Column:
    """What the table says about one ETF.

    Attributes:
        prices: by day, oldest first.
        rejected: the days with a figure that is no price, oldest first.
    """

    prices: dict[date, Decimal] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The prices of several ETFs on the same days.

    Attributes:
        columns: by symbol.
        first: the first day.
        last: the last day.
    """

    columns: Mapping[str, Column]
    first: date
    last: date


def read_table(source: str, content: bytes) -> PriceTable:
    """Return the table in a CSV file, every figure of it checked.

    Args:
        source: where it comes from, for the error.
        content: the file.

    Raises:
        BadAnswer: it is not such a table, is cut, names an ETF twice, or its days do not go up.
    """
    if not content.endswith(b"\n"):
        raise BadAnswer(source, "the table is empty or cut: its last line has no end")
    try:
        header, *lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise BadAnswer(source, f"it is not plain text; it begins with {content[:40]!r}") from error
    symbols = _read_header(source, header)
    columns = {symbol: Column() for symbol in symbols}
    days = []
    for day, figures in _read_lines(source, lines, len(symbols)):
        days.append(day)
        for column, figure in zip(columns.values(), figures, strict=True):
            try:
                column.prices[day] = read_price(figure)
            except NotAPrice as error:
                column.rejected.append(Rejected(day, str(error)))
    if not days:
        raise BadAnswer(source, "there is no day in it")
    return PriceTable(columns, days[0], days[-1])


def _read_header(source: str, header: str) -> list[str]:
    first, *symbols = header.split(",")
    if first != "Date" or not symbols:
        raise BadAnswer(source, f"a table of prices was expected, it begins with {header[:60]!r}")
    for symbol in symbols:
        try:
            check_symbol(symbol)
        except InvalidField as error:
            raise BadAnswer(source, f"{symbol[:40]!r} is no symbol") from error
    if len(set(symbols)) != len(symbols):
        raise BadAnswer(source, "an ETF is in it twice")
    return symbols


def _read_lines(source: str, lines: list[str], width: int) -> Iterator[tuple[date, list[str]]]:
    before = date.min
    for number, line in enumerate(lines, start=2):
        text, *figures = line.split(",")
        day = read_day(source, text)
        if len(figures) != width:
            raise BadAnswer(source, f"line {number} has not as many fields as the header")
        if day <= before:
            raise BadAnswer(source, f"line {number} is of {day}, which does not come after {before}")
        before = day
        yield day, figures
