"""Reads the single fields of the ECB's files, and takes nothing that is not plainly right.

Python's own readers are too kind: ``Decimal`` takes "NaN", "1e5" and Arabic digits,
``date.fromisoformat`` takes "20240102". Here a field that the ECB would not write is a bad answer.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

from portfolio.rates.errors import BadAnswer
from portfolio.rates.sources.protocol import BASE_CURRENCY

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_RATE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


def read_day(source: str, text: str) -> date:
    """Return the day that ``text`` names.

    Args:
        source: where the text comes from, for the error.
        text: e.g. "2026-10-30".

    Raises:
        BadAnswer: it names none.
    """
    if not _DAY.fullmatch(text):
        raise BadAnswer(source, f"{_shown(text)} is not a day")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadAnswer(source, f"{_shown(text)} is not a day") from error


def read_currency(source: str, text: str) -> str:
    """Return ``text`` if it is the code of a currency that is priced in euro.

    Args:
        source: where the text comes from, for the error.
        text: e.g. "USD".

    Raises:
        BadAnswer: it is none.
    """
    if not _CURRENCY.fullmatch(text) or text == BASE_CURRENCY:
        raise BadAnswer(source, f"{_shown(text)} is not a currency priced in {BASE_CURRENCY}")
    return text


def read_rate(source: str, text: str) -> Decimal:
    """Return the rate in ``text``, digit for digit.

    Args:
        source: where the text comes from, for the error.
        text: a plain decimal number above zero, e.g. "1.1172"; those published had at most 7 digits before
            the point and 6 behind it, and more than 6 would be rounded by the column they are stored in.

    Raises:
        BadAnswer: it is no such number.
    """
    if not _RATE.fullmatch(text):
        raise BadAnswer(source, f"{_shown(text)} is not an exchange rate")
    rate = Decimal(text)
    if not rate:
        raise BadAnswer(source, "an exchange rate cannot be zero")
    return rate


def _shown(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
