"""What an update of an ETF may be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

from portfolio.etfs.fields import check_range, check_symbol
from portfolio.rates.calendar import FIRST_DAY
from tasktrail import InvalidField


class UpdateType(StrEnum):
    """What an update fetches."""

    FULL = "full"
    """The facts about the ETF and the prices of the range."""
    PRICES_ONLY = "prices_only"
    """The prices of the range."""
    INFO_ONLY = "info_only"
    """The facts about the ETF; the range only says for which days somebody wanted them."""
    MANUAL = "manual"
    """The prices of the range, because a person asked for them."""

    @property
    def wants_info(self) -> bool:
        """Whether the facts about the ETF are fetched."""
        return self in (UpdateType.FULL, UpdateType.INFO_ONLY)

    @property
    def wants_prices(self) -> bool:
        """Whether prices are fetched."""
        return self is not UpdateType.INFO_ONLY


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """An update that makes sense; see :func:`checked_request`.

    Attributes:
        symbol: the ETF.
        update_type: what to fetch.
        start_date: first day.
        end_date: last day, which belongs to the range.
    """

    symbol: str
    update_type: UpdateType
    start_date: date
    end_date: date


def checked_request(
    symbol: str, update_type: str, start_date: date, end_date: date, *, now: datetime
) -> UpdateRequest:
    """Return the request for an update of an ETF, or say what is wrong with it.

    Today may be asked for, though its prices may not be final yet: then none is stored, and the day is not
    missing either. Today is the day in UTC, on which the schedule runs. East of it tomorrow begins sooner,
    but no exchange there has prices of it yet.

    Args:
        symbol: the ETF; whether there is such a one is for the source to say.
        update_type: one of :class:`UpdateType`.
        start_date: first day, not before the first exchange rates of the euro.
        end_date: last day, which belongs to the range.
        now: the time, with a time zone.

    Raises:
        InvalidField: one of them is not acceptable; the error names it and says why.
    """
    check_symbol(symbol)
    checked_type = _checked_type(update_type)
    check_range(start_date, end_date, names=("start_date", "end_date"))
    if start_date < FIRST_DAY:
        raise InvalidField(
            "start_date", start_date, f"the first exchange rates of the euro are those of {FIRST_DAY}"
        )
    if now.tzinfo is None:
        raise InvalidField("now", now, "a time needs a time zone")
    today = now.astimezone(UTC).date()
    if end_date > today:
        raise InvalidField("end_date", end_date, f"it is in the future: in UTC it is {today}")
    return UpdateRequest(symbol, checked_type, start_date, end_date)


def _checked_type(update_type: object) -> UpdateType:
    try:
        return UpdateType(update_type)  # type: ignore[arg-type]  # whatever it is, it is checked here
    except ValueError:
        known = ", ".join(UpdateType)
        raise InvalidField("update_type", update_type, f"it is none of {known}") from None
