"""The application's tables: what the jobs produce, and the rows that track them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ARRAY, Date, Integer, Numeric, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from portfolio.rates.sources import BASE_CURRENCY
from tasktrail import BaseTaskTracking, InvalidField, NaturalKey, Progress, TrackingOptions

TRACKING_SCHEMA: Final = "tracking"
"""The new tables stand here, beside the legacy ones in ``public`` (DESIGN section 8)."""

CURRENCY: Final = "[A-Z]{3}"
"""Form of an ISO 4217 code."""


class Base(DeclarativeBase):
    """The application's tables."""


class ExchangeRate(Base):
    """One published rate: units of ``currency`` for one euro on ``date``."""

    __tablename__ = "exchange_rates"

    date: Mapped[date] = mapped_column(Date, primary_key=True)
    currency: Mapped[str] = mapped_column(String(3), primary_key=True)
    rate: Mapped[Decimal] = mapped_column(Numeric(20, 6))


def _check_currencies(fields: Mapping[str, Any]) -> None:
    base = fields["base_currency"]
    if base != BASE_CURRENCY:
        raise InvalidField("base_currency", base, f"the ECB publishes rates for one {BASE_CURRENCY} only")
    targets = fields["target_currencies"]
    if not targets:
        raise InvalidField("target_currencies", targets, "at least one currency is needed")
    doubled = sorted({currency for currency in targets if targets.count(currency) > 1})
    if doubled:
        raise InvalidField("target_currencies", targets, f"names {', '.join(doubled)} more than once")
    if base in targets:
        raise InvalidField("target_currencies", targets, "holds the base currency, whose rate is always 1")


class ExchangeRateUpdateTracking(BaseTaskTracking, Base):
    """One update of the exchange rates of one day."""

    __tablename__ = "exchange_rate_update_tracking"
    __tracking__ = TrackingOptions(
        domain="exchange_rate",
        schema=TRACKING_SCHEMA,
        natural_key=NaturalKey(("update_date", "base_currency"), "uq_exchange_rate_update"),
        progress=Progress(done="success_count", total="total_count"),
        check=_check_currencies,
    )

    update_date: Mapped[date] = mapped_column(Date)
    base_currency: Mapped[str] = mapped_column(String(3), info={"pattern": CURRENCY})
    target_currencies: Mapped[list[str]] = mapped_column(ARRAY(String(3)), info={"pattern": CURRENCY})
    success_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    total_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    source: Mapped[str] = mapped_column(String(50))
