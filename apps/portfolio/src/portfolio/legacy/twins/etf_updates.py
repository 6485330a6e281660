"""``etf_updates`` -> ``tracking.etf_updates``."""

from __future__ import annotations

from typing import Any, Final

from portfolio.legacy.ranges import as_utc, is_good_day, is_good_retry_count, start_of
from portfolio.legacy.reasons import Reason, Unmappable
from portfolio.legacy.twins.standard import (
    Draft,
    Row,
    check_times,
    judged,
    put_end,
    put_standard,
    put_start,
    status_of,
)
from portfolio.legacy.vocabulary import RETRYING, plain
from tasktrail import Status
from tasktrail.migration.plan import Mapped, Refused

ETF_EXISTS: Final = "etf_exists"
"""What the twin is told besides the columns: whether there is an ETF with the row's ``etf_id``."""

UPDATE_TYPES: Final = frozenset({"full", "prices_only", "info_only", "manual"})

_TIMES: Final = {
    "created_at": Reason.CREATED_AT_OUT_OF_RANGE,
    "completed_at": Reason.COMPLETED_AT_OUT_OF_RANGE,
}


def etf_update_twin(row: Row) -> Mapped | Refused:
    """Return what an update of an ETF becomes.

    Args:
        row: of ``etf_updates``, and ``ETF_EXISTS``.
    """
    return judged(_drafted, row)


def _drafted(row: Row) -> Draft:
    word, status = status_of(row)
    _check_identity(row)
    _check_range(row)
    check_times(row, _TIMES)
    if not is_good_retry_count(row["retry_count"]):
        raise Unmappable(Reason.RETRY_COUNT_OUT_OF_RANGE)
    if not _are_good_days(row["missing_dates"]):
        raise Unmappable(Reason.MISSING_DATES_MALFORMED)

    draft = Draft()
    draft.put("id", row["id"])
    draft.put("etf_id", row["etf_id"])
    draft.put("update_type", plain(row["update_type"]))
    for name in ("start_date", "end_date", "notes"):
        draft.put(name, row[name])
    missing = row["missing_dates"]
    draft.put("missing_dates", None if missing is None else list(missing))
    retries = row["retry_count"]
    is_first_retry = word == RETRYING and retries == 0
    put_standard(draft, status, row["error"], 1 if is_first_retry else retries)
    draft.put("attempts", draft.values["attempts"], inferred=is_first_retry)
    _put_times(draft, status, row)
    return draft


def _check_identity(row: Row) -> None:
    if plain(row["update_type"]) not in UPDATE_TYPES:
        raise Unmappable(Reason.UNKNOWN_UPDATE_TYPE)
    if row["etf_id"] is None or row[ETF_EXISTS] is not True:
        raise Unmappable(Reason.ETF_UNKNOWN)


def _check_range(row: Row) -> None:
    start, end = row["start_date"], row["end_date"]
    if start is None or end is None:
        raise Unmappable(Reason.DATE_MISSING)
    if not is_good_day(start) or not is_good_day(end):
        raise Unmappable(Reason.DATE_OUT_OF_RANGE)
    if start > end:
        raise Unmappable(Reason.DATES_REVERSED)


def _are_good_days(days: Any) -> bool:
    return days is None or (isinstance(days, list) and all(map(is_good_day, days)))


def _put_times(draft: Draft, status: Status, row: Row) -> None:
    created, completed = row["created_at"], row["completed_at"]
    created_at = as_utc(created or completed or start_of(row["end_date"]))
    ended_at = as_utc(completed) if completed else created_at
    draft.put("created_at", created_at, inferred=created is None)
    draft.put("updated_at", ended_at, inferred=True)
    put_end(draft, status, ended_at, is_guessed=completed is None)
    put_start(draft, status, created_at)
