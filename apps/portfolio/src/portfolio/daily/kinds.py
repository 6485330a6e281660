"""What a daily update can be about: the exchange rates, the prices of all ETFs, or those of one."""

from __future__ import annotations

from datetime import UTC, date, datetime

from portfolio.etfs.calendar import NEW_YORK, final_at, why_it_is_closed
from portfolio.etfs.fields import check_day
from portfolio.models import ETF_PRICES, EXCHANGE_RATES
from portfolio.rates.calendar import publication_time, why_nothing_is_published
from tasktrail import InvalidField

KNOWN = f"{EXCHANGE_RATES}, {ETF_PRICES}, {ETF_PRICES}_<etf id>"
"""The types, for people."""


def check_daily(update_date: object, update_type: object, now: datetime) -> None:
    """Refuse a day or a type for which there is no daily update.

    Args:
        update_date: the day.
        update_type: what is to be updated.
        now: the time, with a time zone.

    Raises:
        InvalidField: the day is no plain date or in the future (in UTC, on which the schedule runs), or the
            type is not known.
    """
    check_day("update_date", update_date)
    today = now.astimezone(UTC).date()
    if isinstance(update_date, date) and update_date > today:
        raise InvalidField("update_date", update_date, f"it is in the future: in UTC it is {today}")
    if not isinstance(update_type, str) or not (update_type == EXCHANGE_RATES or is_about_etfs(update_type)):
        raise InvalidField("update_type", update_type, f"it is none of {KNOWN}")


def is_about_etfs(update_type: str) -> bool:
    """Return whether a type is about the prices of ETFs."""
    return update_type == ETF_PRICES or etf_id_of(update_type) is not None


def etf_id_of(update_type: str) -> str | None:
    """Return the one ETF that a type is about, or None."""
    prefix = f"{ETF_PRICES}_"
    return update_type.removeprefix(prefix) or None if update_type.startswith(prefix) else None


def data_are_out_at(update_date: date, update_type: str) -> datetime | None:
    """Return when the data of a day are there to be fetched, in UTC; None on a day that has none.

    ETF prices are waited for until New York's are final, the last of the known exchanges to close: at 20:30
    UTC in summer, at 21:30 in winter.

    Args:
        update_date: the day.
        update_type: what is to be updated.
    """
    if update_type == EXCHANGE_RATES:
        return None if why_nothing_is_published(update_date) else publication_time(update_date)
    return None if why_it_is_closed(update_date, NEW_YORK) else final_at(update_date, NEW_YORK)
