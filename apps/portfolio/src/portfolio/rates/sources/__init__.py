"""Where exchange rates come from: the protocol, and its two real implementations."""

from portfolio.rates.sources.bundled import BundledHistory
from portfolio.rates.sources.live import ECB_URL, LiveEcb
from portfolio.rates.sources.protocol import (
    BASE_CURRENCY,
    NAME_LIMIT,
    DailyRates,
    RatesSource,
    checked_currencies,
)

__all__ = [
    "BASE_CURRENCY",
    "ECB_URL",
    "NAME_LIMIT",
    "BundledHistory",
    "DailyRates",
    "LiveEcb",
    "RatesSource",
    "checked_currencies",
]
