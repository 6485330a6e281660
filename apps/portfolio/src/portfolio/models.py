"""The application's tables: what the jobs produce, and the rows that track them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ARRAY, Boolean, Date, ForeignKey, Integer, Numeric, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from portfolio.etfs.request import UpdateType
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


UPDATE_TYPES: Final = tuple(UpdateType)
"""What an ETF update may fetch."""


class Etf(Base):
    """One ETF; the table is older than the tracking tables and stays."""

    __tablename__ = "etfs"

    id: Mapped[str] = mapped_column(String, primary_key=True)
    symbol: Mapped[str | None] = mapped_column(String)
    name: Mapped[str | None] = mapped_column(String)
    currency: Mapped[str | None] = mapped_column(String)
    isin: Mapped[str | None] = mapped_column(String)


class EtfPrice(Base):
    """One price of an ETF on one day from one source, in euro and as it was quoted."""

    __tablename__ = "etf_prices"

    etf_id: Mapped[str] = mapped_column(ForeignKey("etfs.id"), primary_key=True)
    date: Mapped[date] = mapped_column(Date, primary_key=True)
    source: Mapped[str] = mapped_column(String(50), primary_key=True)
    price: Mapped[Decimal] = mapped_column(Numeric(20, 6))
    currency: Mapped[str] = mapped_column(String(3))
    original_price: Mapped[Decimal] = mapped_column(Numeric(20, 6))
    original_currency: Mapped[str] = mapped_column(String(3))


def _check_range(fields: Mapping[str, Any]) -> None:
    start, end = fields["start_date"], fields["end_date"]
    if start > end:
        raise InvalidField("start_date", start, f"is after end_date, {end}")
    if fields["update_type"] not in UPDATE_TYPES:
        known = ", ".join(UPDATE_TYPES)
        raise InvalidField("update_type", fields["update_type"], f"is none of {known}")


class EtfUpdateTracking(BaseTaskTracking, Base):
    """One update of one ETF: its facts, its prices of a range, or both."""

    __tablename__ = "etf_updates"
    __tracking__ = TrackingOptions(domain="etf_update", schema=TRACKING_SCHEMA, check=_check_range)

    etf_id: Mapped[str] = mapped_column(ForeignKey("etfs.id", ondelete="CASCADE"))
    update_type: Mapped[str] = mapped_column(String)
    start_date: Mapped[date] = mapped_column(Date)
    end_date: Mapped[date] = mapped_column(Date)
    missing_dates: Mapped[list[date] | None] = mapped_column(ARRAY(Date))
    notes: Mapped[str | None] = mapped_column(Text)


EXCHANGE_RATES: Final = "exchange_rates"
"""Daily update of the exchange rates."""

ETF_PRICES: Final = "etf_prices"
"""Daily update of the prices of all ETFs; with ``_<etf id>`` behind it, of one."""


def _check_daily(fields: Mapping[str, Any]) -> None:
    update_type = fields["update_type"]
    if update_type not in (EXCHANGE_RATES, ETF_PRICES) and not update_type[len(ETF_PRICES) + 1 :]:
        raise InvalidField(
            "update_type", update_type, f"is none of {EXCHANGE_RATES}, {ETF_PRICES}, {ETF_PRICES}_<etf id>"
        )


class DailyUpdateTracking(BaseTaskTracking, Base):
    """The decision, for one day and one kind of data, whether an update is due, and its outcome."""

    __tablename__ = "daily_update_tracking"
    __tracking__ = TrackingOptions(
        domain="daily_update",
        schema=TRACKING_SCHEMA,
        natural_key=NaturalKey(("update_date", "update_type"), "uq_daily_update"),
        check=_check_daily,
    )

    update_date: Mapped[date] = mapped_column(Date)
    update_type: Mapped[str] = mapped_column(String(50))
    data_found: Mapped[bool | None] = mapped_column(Boolean)
    notes: Mapped[str | None] = mapped_column(Text)


class EtfCreationTracking(BaseTaskTracking, Base):
    """The creation of one ETF: its facts are filled in and its whole history is fetched."""

    __tablename__ = "etf_creation_tracking"
    __tracking__ = TrackingOptions(
        domain="etf_creation",
        schema=TRACKING_SCHEMA,
        natural_key=NaturalKey(("etf_id",), "uq_etf_creation"),
    )

    etf_id: Mapped[str] = mapped_column(String)
    resource_id: Mapped[int | None] = mapped_column(Integer)
    task_metadata: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
