"""The service of the exchange-rate updates."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any, Final

from portfolio.models import ExchangeRateUpdateTracking
from portfolio.rates.sources import BASE_CURRENCY
from tasktrail import BaseTaskTrackingService

DEFAULT_CURRENCIES: Final = ("USD", "GBP", "CHF", "JPY", "SEK", "NOK", "DKK", "CAD", "AUD", "PLN")
"""What an update asks for when nobody says otherwise: the currencies of the planner's ETFs and users."""


def update_fields(
    update_date: date, target_currencies: Collection[str], source: str, base_currency: str = BASE_CURRENCY
) -> dict[str, Any]:
    """Return the fields of a new row.

    Args:
        update_date: the day.
        target_currencies: the currencies whose rates are wanted, as ISO 4217 codes.
        source: name of the source, at most 50 characters.
        base_currency: the currency the rates are for one unit of.
    """
    currencies = _listed(target_currencies)
    return {
        "update_date": update_date,
        "base_currency": base_currency,
        "target_currencies": currencies,
        "total_count": len(currencies) if isinstance(currencies, list) else 0,
        "source": source,
    }


def _listed(currencies: object) -> Any:
    """Return a collection as a list, anything else as it is: its refusal is to name the field.

    A text is a collection in Python's eyes, and would be refused for its first letter.
    """
    if isinstance(currencies, Collection) and not isinstance(currencies, str):
        return list(currencies)
    return currencies


class ExchangeRateTrackingService(BaseTaskTrackingService[ExchangeRateUpdateTracking]):
    """Operations on the rows of ``tracking.exchange_rate_update_tracking``."""

    model = ExchangeRateUpdateTracking

    async def create_update_tracking(
        self,
        update_date: date,
        target_currencies: Collection[str],
        *,
        source: str,
        base_currency: str = BASE_CURRENCY,
        **more: Any,
    ) -> int:
        """Return the row that tracks the update of one day, adding it if there is none.

        Args:
            update_date: the day.
            target_currencies: the currencies whose rates are wanted, as ISO 4217 codes.
            source: name of the source, at most 50 characters.
            base_currency: the currency the rates are for one unit of.
            **more: ``max_attempts`` or ``next_attempt_at``, if wanted.

        Returns:
            The row's id; the same one for the same day and base currency.

        Raises:
            InvalidField: a field is not acceptable; there is no new row.
        """
        fields = update_fields(update_date, target_currencies, source, base_currency)
        return await self.create_tracking(on_duplicate="return", **{**more, **fields})
