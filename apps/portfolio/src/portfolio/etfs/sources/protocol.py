"""What a source of ETF prices is, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple, Protocol

from portfolio.etfs.fields import check_isin

NAME_LIMIT = 50
"""Longest name of a source, in characters: the width of the column."""


class Rejected(NamedTuple):
    """A day for which the source gave something that is no price.

    Attributes:
        day: the day.
        reason: what was wrong, e.g. "'NaN' is not a price".
    """

    day: date
    reason: str


@dataclass(frozen=True, slots=True)
class PriceSeries:
    """The daily prices of one ETF.

    Attributes:
        symbol: the ETF.
        currency: of all prices, as in ISO 4217; never a minor unit such as pence.
        prices: by day, oldest first; above zero, with at most six decimals.
        rejected: days of which the source said something that is no price, oldest first. None of them is
            in ``prices``; a day of which it said nothing is in neither.
    """

    symbol: str
    currency: str
    prices: Mapping[date, Decimal]
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, slots=True)
class EtfInfo:
    """What a source knows about an ETF.

    Attributes:
        symbol: by which the source knows it.
        name: the full name.
        currency: in which it is quoted, as in ISO 4217.
        isin: None where the source does not say.
        calendar: the exchange calendar it keeps, one of :data:`portfolio.etfs.calendar.CALENDARS`.
        first_day: the first day of which the source has prices; None where it does not say.
        last_day: the last day of which it will ever have prices; None where there is no end.

    Raises:
        InvalidField: ``isin`` is none.
    """

    symbol: str
    name: str
    currency: str
    isin: str | None
    calendar: str
    first_day: date | None = None
    last_day: date | None = None

    def __post_init__(self) -> None:
        if self.isin is not None:
            check_isin(self.isin)


class PriceSource(Protocol):
    """Where ETF prices come from."""

    @property
    def name(self) -> str:
        """What a stored price says about its origin, at most ``NAME_LIMIT`` characters."""
        ...

    async def fetch(self, symbol: str, start: date, end: date) -> PriceSeries:
        """Return the daily prices of one ETF.

        Args:
            symbol: the ETF.
            start: first day.
            end: last day, which belongs to the range.

        Returns:
            What the source has in that range; there may be no price in it, e.g. on a weekend.

        Raises:
            InvalidField: ``symbol``, ``start`` or ``end`` is not acceptable.
            SourceDown: the source did not answer.
            BadAnswer: the source answered nonsense.
            GiveUp: the source will never have these prices: one of the errors that
                :mod:`portfolio.etfs.errors` marks so.
        """
        ...

    async def info(self, symbol: str) -> EtfInfo:
        """Return what the source knows about one ETF.

        Args:
            symbol: the ETF.

        Raises:
            InvalidField: ``symbol`` is not acceptable.
            SourceDown: the source did not answer.
            BadAnswer: the source answered nonsense.
            GiveUp: the source does not know it: one of the errors that :mod:`portfolio.etfs.errors` marks so.
        """
        ...
