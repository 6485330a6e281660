"""What a symbol, an id, a day and a range of days must look like."""

from __future__ import annotations

import re
from datetime import date, datetime

from tasktrail import InvalidField

SYMBOL_LIMIT = 20
"""Longest symbol, in characters; Yahoo's longest, with the suffix of its exchange, have about 15."""

ID_LIMIT = 255
"""Longest id of an ETF, in characters."""

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.-]*")
_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")


def check_symbol(symbol: object) -> None:
    """Refuse what cannot be the symbol of an ETF.

    Args:
        symbol: e.g. "MTUM", or "EUNL.DE" with the suffix that Yahoo gives the exchange. Whether there is
            such an ETF is not checked: a source says which it does not know.

    Raises:
        InvalidField: it has another form, or is an ISIN, which names a fund but not where it is quoted.
    """
    if not isinstance(symbol, str) or not _SYMBOL.fullmatch(symbol) or len(symbol) > SYMBOL_LIMIT:
        raise InvalidField(
            "symbol", symbol, f"a symbol is 1 to {SYMBOL_LIMIT} capital letters, digits, dots or hyphens"
        )
    if _ISIN.fullmatch(symbol):
        raise InvalidField("symbol", symbol, "this is an ISIN; a symbol such as MTUM is needed")


def check_etf_id(etf_id: object) -> None:
    """Refuse what cannot be the id of an ETF.

    Args:
        etf_id: any text that can be printed: ids given out by older systems have no common form.

    Raises:
        InvalidField: it is empty, too long, or holds characters that cannot be printed.
    """
    if not isinstance(etf_id, str) or not 0 < len(etf_id) <= ID_LIMIT or not etf_id.isprintable():
        raise InvalidField("etf_id", etf_id, f"an id is 1 to {ID_LIMIT} printable characters")


def check_isin(isin: str) -> None:
    """Refuse what is no ISIN (ISO 6166).

    Args:
        isin: e.g. "US46432F3964".

    Raises:
        InvalidField: it has another form, or its last digit is not the check digit of the others: letters
            stand for 10 to 35, every second digit from the right counts double, digit sums add up to a
            multiple of 10.
    """
    if not _ISIN.fullmatch(isin):
        raise InvalidField(
            "isin", isin, "an ISIN is a country's two letters, nine letters or digits, a digit"
        )
    digits = "".join(str(int(character, 36)) for character in isin)
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    if sum(value // 10 + value % 10 for value in doubled) % 10:
        raise InvalidField("isin", isin, "its check digit does not fit the rest")


def check_day(field: str, day: object) -> None:
    """Refuse what is not a plain date.

    Args:
        field: the name of the field, for the error.
        day: what was given as a day.

    Raises:
        InvalidField: it is not a date, or it is a datetime, which Python takes for a date but which
            equals none.
    """
    if not isinstance(day, date) or isinstance(day, datetime):
        raise InvalidField(field, day, "a date without a time is needed")


def check_range(start: object, end: object, *, names: tuple[str, str] = ("start", "end")) -> None:
    """Refuse what is not a range of days.

    Args:
        start: first day.
        end: last day, which belongs to the range.
        names: what the two fields are called, for the error.

    Raises:
        InvalidField: one of them is not a plain date, or the first day is after the last.
    """
    for field, day in zip(names, (start, end), strict=True):
        check_day(field, day)
    if start > end:  # type: ignore[operator]  # both are dates by now
        raise InvalidField(names[0], start, f"it is after {names[1]} {end}")
