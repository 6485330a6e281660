"""Turns the price of an ETF into euro.

**The rule.** The ECB publishes how many units of a currency one euro is worth. So the price in euro is
the price divided by the rate: on 2014-04-17 a price of 10 USD at a rate of 1.3855 was 7.217611 EUR.

**Rounding.** The quotient is rounded once, to the six decimals of the column, ties away from zero. That
is what PostgreSQL's ``round`` does to a numeric, so that anyone can check every row with
``price = round(original_price / rate, 6)``. Six decimals are far finer than any price, so that sums over
many shares are not off by cents. What is shown is the stored price rounded to the cent, again with ties
away from zero, as on an invoice. It is taken from what is stored, not from the quotient, so that whoever
has the row gets the same cent.

**The day of the rate.** It is the day of the price, or, where the ECB publishes nothing on that day, the
last publication day before it: prices of Easter Monday, when New York trades, take the rates of Maundy
Thursday. That day follows from the ECB's calendar and not from what happens to be stored. Otherwise a
rate that has not arrived yet would silently be replaced by one that is a few days old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal

from portfolio.etfs.errors import MissingRate
from portfolio.etfs.sources import PriceSeries
from portfolio.rates.calendar import FIRST_DAY, check_day, why_nothing_is_published
from portfolio.rates.sources import BASE_CURRENCY
from tasktrail import InvalidField

PLACES = Decimal("0.000001")
"""What a stored price is a multiple of: NUMERIC(20, 6)."""

CENT = Decimal("0.01")
"""What a shown price is a multiple of."""

LARGEST = Decimal("99999999999999.999999")
"""The largest price that can be stored."""

LONGEST_WAIT = 7
"""The most days between a rate and a price it is used for. The ECB's longest silence is four: Easter."""

_EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
"""Digits enough for the quotient of any price and any rate, whatever the context of the caller is."""


@dataclass(frozen=True, slots=True)
class EurPrice:
    """The price of an ETF on one day.

    Attributes:
        price: in euro, with six decimals.
        original_price: as the source quoted it.
        original_currency: the currency of that.
        rate_day: the day whose exchange rate was used; None for a price that was in euro.
    """

    price: Decimal
    original_price: Decimal
    original_currency: str
    rate_day: date | None


def converted(series: PriceSeries, rates: Mapping[date, Decimal]) -> dict[date, EurPrice]:
    """Return the prices of a series in euro, oldest first.

    Args:
        series: the prices in any currency; those in euro keep their value and need no rate.
        rates: units of the series' currency per one euro, by publication day: at least those of
            :func:`rate_days`.

    Raises:
        MissingRate: rates are missing; the error names the days of all of them.
        InvalidField: a rate is not a positive number, a price cannot be stored, or a day is before the
            first rates.
    """
    if series.currency == BASE_CURRENCY:
        return {
            day: EurPrice(_storable(price), price, BASE_CURRENCY, None)
            for day, price in series.prices.items()
        }
    used = rate_days(series.prices)
    if missing := [day for day in used.values() if day not in rates]:
        raise MissingRate(series.currency, missing)
    return {
        day: EurPrice(eur_price(price, rates[used[day]]), price, series.currency, used[day])
        for day, price in series.prices.items()
    }


def rate_days(days: Iterable[date]) -> dict[date, date]:
    """Return for each day the day whose exchange rates apply to it.

    Args:
        days: days of prices.

    Raises:
        InvalidField: see :func:`rate_day`.
    """
    return {day: rate_day(day) for day in days}


def rate_day(day: date) -> date:
    """Return the day whose exchange rates apply to the prices of ``day``.

    Args:
        day: the day of a price.

    Returns:
        The day itself, or the last day before it on which the ECB published rates.

    Raises:
        InvalidField: it is not a plain date, is before the first rates, or the ECB publishes nothing for
            longer than ``LONGEST_WAIT`` days, which it never did.
    """
    check_day(day)
    if day < FIRST_DAY:
        raise InvalidField("day", day, f"the first exchange rates of the euro are those of {FIRST_DAY}")
    for back in range(LONGEST_WAIT + 1):
        published = day - timedelta(days=back)
        if why_nothing_is_published(published) is None:
            return published
    raise InvalidField("day", day, f"the ECB published nothing in the {LONGEST_WAIT} days before it")


def eur_price(price: Decimal, rate: Decimal) -> Decimal:
    """Return a price in euro, rounded to six decimals.

    Args:
        price: in some currency.
        rate: units of that currency per one euro.

    Raises:
        InvalidField: one of them is not a positive number, or the price in euro cannot be stored.
    """
    _check_positive("price", price)
    _check_positive("rate", rate)
    return _storable(_EXACT.divide(price, rate))


def to_the_cent(price: Decimal) -> Decimal:
    """Return a stored price as it is shown.

    Args:
        price: in euro.

    Raises:
        InvalidField: it is not a positive number that can be stored.
    """
    return _EXACT.quantize(_storable(price), CENT)


def _storable(price: Decimal) -> Decimal:
    _check_positive("price", price)
    # Compared before it is rounded: a number with more digits than the context has cannot be.
    stored = _EXACT.quantize(price, PLACES) if price <= LARGEST else price
    if not PLACES <= stored <= LARGEST:
        raise InvalidField("price", price, f"in {BASE_CURRENCY} it is not from {PLACES} to {LARGEST}")
    return stored


def _check_positive(field: str, number: object) -> None:
    if not isinstance(number, Decimal) or not number.is_finite() or number <= 0:
        raise InvalidField(field, number, "a decimal number above zero is needed")
