"""What a source of exchange rates is, and what it returns."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Protocol

from tasktrail import InvalidField

BASE_CURRENCY = "EUR"
"""Every rate of the ECB is a number of currency units per one euro."""

NAME_LIMIT = 50
"""Longest name of a source, in characters: the width of the tracking table's column."""

Table = Mapping[date, Mapping[str, Decimal]]
"""Published days, each with its rates: currency units per one euro."""

_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class DailyRates:
    """The rates of one day.

    Attributes:
        day: the day for which they were published.
        base: the currency of which one unit is priced, "EUR".
        rates: currency units per one unit of the base, exactly as published.
        missing: the currencies that were asked for and have no rate on that day.
    """

    day: date
    base: str
    rates: Mapping[str, Decimal]
    missing: tuple[str, ...]


class RatesSource(Protocol):
    """Where exchange rates come from."""

    @property
    def name(self) -> str:
        """What the tracking row says about the origin of the rates, at most ``NAME_LIMIT`` characters."""
        ...

    async def fetch(self, day: date, currencies: Collection[str]) -> DailyRates:
        """Return the rates of one day.

        Args:
            day: the day for which the rates were published.
            currencies: codes of three capital letters, at least one, without the base. Doubles are
                welcome and returned once.

        Returns:
            The rates of exactly that day, never of a neighbour; what the source does not have is in
            ``missing``.

        Raises:
            InvalidField: ``day`` or ``currencies`` is not acceptable.
            SourceDown: the source did not answer.
            BadAnswer: the source answered nonsense.
            NotYetPublished: the rates of that day are still to come.
            GiveUp: that day will never have rates here: one of the errors that
                :mod:`portfolio.rates.errors` marks so.
        """
        ...


def checked_currencies(currencies: Collection[str]) -> tuple[str, ...]:
    """Return the currencies in the order given, each once.

    The base itself is refused: its rate is 1 by definition, and a row that stores it would claim that
    the ECB had published it.

    Args:
        currencies: codes as in ISO 4217, e.g. "USD". Whether such a currency exists is not checked: a
            source says which it lacks.

    Raises:
        InvalidField: it is empty or no list, or one of them is the base or not three capital letters.
    """
    _check_collection(currencies)
    for currency in currencies:
        _check_currency(currency)
    return tuple(dict.fromkeys(currencies))


def _check_collection(currencies: object) -> None:
    if isinstance(currencies, str) or not isinstance(currencies, Collection):
        raise InvalidField("currencies", currencies, "a list of currencies is needed")
    if not currencies:
        raise InvalidField("currencies", currencies, "at least one currency is needed")


def _check_currency(currency: object) -> None:
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise InvalidField("currencies", currency, "a currency is three capital letters A to Z")
    if currency == BASE_CURRENCY:
        raise InvalidField("currencies", currency, "this is the base, in which the others are priced")


def selected(day: date, published: Mapping[str, Decimal], asked: tuple[str, ...]) -> DailyRates:
    """Return what was asked out of what was published.

    Args:
        day: the day of the rates.
        published: all rates of that day.
        asked: the currencies wanted.
    """
    return DailyRates(
        day=day,
        base=BASE_CURRENCY,
        rates={currency: published[currency] for currency in asked if currency in published},
        missing=tuple(currency for currency in asked if currency not in published),
    )
