"""Where ETF prices come from: the protocol, and its two real implementations."""

from portfolio.etfs.sources.bundled import BundledPrices
from portfolio.etfs.sources.protocol import NAME_LIMIT, EtfInfo, PriceSeries, PriceSource, Rejected
from portfolio.etfs.sources.yahoo import YahooPrices

__all__ = [
    "NAME_LIMIT",
    "BundledPrices",
    "EtfInfo",
    "PriceSeries",
    "PriceSource",
    "Rejected",
    "YahooPrices",
]
