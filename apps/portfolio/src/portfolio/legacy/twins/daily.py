"""``daily_update_tracking`` -> ``tracking.daily_update_tracking``."""

from __future__ import annotations

from typing import Final

from portfolio.legacy.ranges import as_utc, is_good_day, start_of
from portfolio.legacy.reasons import Reason, Unmappable
from portfolio.legacy.twins.standard import Draft, Row, judged, put_end, put_standard, put_start
from tasktrail import Status
from tasktrail.migration.plan import Mapped, Refused

LONGEST_TYPE: Final = 50
"""Longest type of a daily update, in characters."""

WHOLE_TYPES: Final = frozenset({"exchange_rates", "etf_prices"})
ONE_ETF: Final = "etf_prices_"
"""What the type of an update of one ETF begins with; the id follows."""

NO_DATA: Final = "attempted before the migration, no data found"
"""The error of a day that the old system attempted in vain; it noted none itself."""


def daily_update_twin(row: Row) -> Mapped | Refused:
    """Return what a daily update becomes.

    Args:
        row: of ``daily_update_tracking``.
    """
    return judged(_drafted, row)


def _drafted(row: Row) -> Draft:
    day, update_type = row["date"], row["update_type"]
    if day is None:
        raise Unmappable(Reason.DATE_MISSING)
    if not is_good_day(day):
        raise Unmappable(Reason.DATE_OUT_OF_RANGE)
    if update_type is not None and len(update_type) > LONGEST_TYPE:
        raise Unmappable(Reason.UPDATE_TYPE_TOO_LONG)
    if not _is_known(update_type):
        raise Unmappable(Reason.UNKNOWN_UPDATE_TYPE)

    status = _status(attempted=row["attempted"], data_found=row["data_found"])
    draft = Draft()
    draft.put("update_date", day)
    draft.put("update_type", update_type)
    draft.put("notes", row["notes"])
    _put_finding(draft, status, found=row["data_found"])
    is_failed = status is Status.FAILED
    put_standard(draft, status, NO_DATA if is_failed else None, 1 if is_failed else 0)
    moment = as_utc(start_of(day))
    draft.put("created_at", moment, inferred=True)
    draft.put("updated_at", moment, inferred=True)
    put_end(draft, status, moment, is_guessed=True)
    put_start(draft, status, moment)
    return draft


def _is_known(update_type: object) -> bool:
    if not isinstance(update_type, str):
        return False
    return update_type in WHOLE_TYPES or (update_type.startswith(ONE_ETF) and update_type != ONE_ETF)


def _status(*, attempted: bool | None, data_found: bool | None) -> Status:
    if data_found:
        return Status.COMPLETED
    return Status.FAILED if attempted else Status.PENDING


def _put_finding(draft: Draft, status: Status, *, found: bool | None) -> None:
    """Set whether data were found; nobody knows that of a day on which nobody has looked."""
    is_failed = status is Status.FAILED
    values = {Status.COMPLETED: True, Status.FAILED: False}
    draft.put("data_found", values.get(status), inferred=is_failed and found is None)
