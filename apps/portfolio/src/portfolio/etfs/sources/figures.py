"""Reads the single figures of an answer, and takes nothing that is not plainly a price.

Python's own readers are too kind: ``Decimal`` takes "NaN", "1e5" and Arabic digits, and a float takes
any of them silently on to the next sum. Here a figure that no exchange would publish is no price.
"""

from __future__ import annotations

import re
import struct
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal

from portfolio.etfs.errors import BadAnswer

DECIMALS = 6
"""The most decimals a price has: those of its column."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PRICE = re.compile(rf"[0-9]{{1,12}}(\.[0-9]{{1,{DECIMALS}}})?")
_LARGEST = 1e12
_PLACES = Decimal(1).scaleb(-DECIMALS)
_CONTEXT = Context(prec=60, rounding=ROUND_HALF_UP)
_DIGITS_OF_A_SINGLE = 9  # with that many every single-precision number is told from its neighbours


class NotAPrice(ValueError):
    """A figure is no price; the message says which."""


def read_day(source: str, text: str) -> date:
    """Return the day that ``text`` names.

    Args:
        source: where the text comes from, for the error.
        text: e.g. "2022-12-28".

    Raises:
        BadAnswer: it names none.
    """
    if not _DAY.fullmatch(text):
        raise BadAnswer(source, f"{_shown(text)} is not a day")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadAnswer(source, f"{_shown(text)} is not a day") from error


def read_price(text: str) -> Decimal:
    """Return the price in ``text``, digit for digit.

    Args:
        text: a plain decimal number above zero with at most six decimals, e.g. "52.704".

    Raises:
        NotAPrice: it is no such number.
    """
    if not _PRICE.fullmatch(text):
        raise NotAPrice(f"{_shown(text)} is not a price")
    price = Decimal(text)
    if not price:
        raise NotAPrice("a price cannot be zero")
    return price


def price_of(number: object, minor_units: int = 0) -> Decimal:
    """Return the price that was meant by a binary floating-point number.

    Price services keep prices in single precision and send them widened to double: 149.77 arrives as
    149.77000427246094. The decimal number meant is the shortest one that has the same single-precision
    value. Any other number is taken as it prints. Both are rounded to six decimals.

    Args:
        number: the number.
        minor_units: by how many decimals the currency unit of the number is smaller than that of the
            price: 2 for pence.

    Raises:
        NotAPrice: it is no number, is not finite, is not above zero, or is too large.
    """
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise NotAPrice(f"{_shown(repr(number))} is not a price")
    if not 0 < number < _LARGEST:
        raise NotAPrice(f"{_shown(str(number))} is not a price" if number else "a price cannot be zero")
    price = _CONTEXT.quantize(Decimal(_shortest(float(number))).scaleb(-minor_units), _PLACES)
    if not price:
        raise NotAPrice(f"{number} is not a price: it is less than {_PLACES}")
    return price


def _shortest(number: float) -> str:
    if _as_single(number) != number:
        return repr(number)
    texts = (f"{number:.{digits}g}" for digits in range(1, _DIGITS_OF_A_SINGLE + 1))
    return next(text for text in texts if _as_single(float(text)) == number)


def _as_single(number: float) -> float:
    (single,) = struct.unpack("<f", struct.pack("<f", number))
    return float(single)


def _shown(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
