"""``task_status``, exchange rates -> ``exchange_rate_update_tracking``."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final

from portfolio.legacy.metadata import Metadata, read_metadata
from portfolio.legacy.ranges import FIRST_DAY, LAST_DAY, start_of
from portfolio.legacy.reasons import Reason, Unmappable
from portfolio.legacy.twins.standard import (
    Draft,
    Row,
    attempts_of_task,
    check_times,
    judged,
    put_standard,
    put_task_times,
    status_of,
)
from portfolio.legacy.vocabulary import COMPLETED_WITH_ERRORS, trimmed, upper
from tasktrail import Status
from tasktrail.migration.plan import Mapped, Refused

BASE_CURRENCY: Final = "EUR"
SOURCE: Final = "legacy"
"""The source of every migrated row: the old system did not note where its rates came from."""

FALLBACK_CURRENCIES: Final = ("USD", "GBP", "CHF", "JPY", "SEK", "NOK", "DKK", "CAD", "AUD", "PLN")
"""What the old system asked for when nobody said otherwise."""

TASK_TIMES: Final = {
    "created_at": Reason.CREATED_AT_OUT_OF_RANGE,
    "updated_at": Reason.UPDATED_AT_OUT_OF_RANGE,
}

_DAY: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


def exchange_rate_twin(row: Row) -> Mapped | Refused:
    """Return what a task that updated exchange rates becomes.

    Args:
        row: of ``task_status``.
    """
    return judged(_drafted, row)


def _drafted(row: Row) -> Draft:
    word, status = status_of(row)
    check_times(row, TASK_TIMES)
    metadata = read_metadata(row["task_metadata"])
    _check_base(metadata.get("base_currency"))
    named_day = _day(metadata.get("date"))
    created, updated = row["created_at"], row["updated_at"]
    known: datetime | None = created or updated or (start_of(named_day) if named_day else None)
    if known is None:
        raise Unmappable(Reason.CREATED_AT_MISSING)
    currencies = _currencies(metadata)

    draft = Draft()
    draft.put("update_date", named_day or known.date(), inferred=named_day is None)
    draft.put("base_currency", BASE_CURRENCY)
    _put_currencies(draft, currencies, word, status)
    draft.put("source", SOURCE)
    put_standard(draft, status, row["error"], attempts_of_task(word, status))
    put_task_times(draft, status, known, row)
    return draft


def _check_base(base: Any) -> None:
    if base is not None and not (isinstance(base, str) and upper(trimmed(base)) == BASE_CURRENCY):
        raise Unmappable(Reason.BASE_CURRENCY_NOT_EUR)


def _day(text: Any) -> date | None:
    if text is None:
        return None
    found = _DAY.fullmatch(trimmed(text)) if isinstance(text, str) else None
    if found is None:
        raise Unmappable(Reason.DATE_MALFORMED)
    year, month, day = map(int, found.groups())
    if not FIRST_DAY.year <= year <= LAST_DAY.year:
        raise Unmappable(Reason.DATE_OUT_OF_RANGE)
    try:
        return date(year, month, day)
    except ValueError:
        raise Unmappable(Reason.DATE_MALFORMED) from None


def _currencies(metadata: Metadata) -> list[str] | None:
    """Return the currencies that are named, in their order; None where the metadata name none."""
    listed = metadata.get("currencies")
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise Unmappable(Reason.CURRENCIES_NOT_A_LIST)
    codes = [upper(trimmed(one)) if isinstance(one, str) else "" for one in listed]
    if not all(map(_CURRENCY.fullmatch, codes)):
        raise Unmappable(Reason.CURRENCY_MALFORMED)
    targets = [code for code in dict.fromkeys(codes) if code != BASE_CURRENCY]
    if not targets:
        raise Unmappable(Reason.CURRENCIES_EMPTY)
    return targets


def _put_currencies(draft: Draft, named: list[str] | None, word: str, status: Status) -> None:
    """Set the targets and the progress: all of them came, unless the old system said there were errors."""
    is_inferred = named is None
    targets = list(FALLBACK_CURRENCIES) if named is None else named
    draft.put("target_currencies", targets, inferred=is_inferred)
    draft.put("total_count", len(targets), inferred=is_inferred)
    if word == COMPLETED_WITH_ERRORS:
        draft.put("success_count", 0, inferred=True)
    elif status is Status.COMPLETED:
        draft.put("success_count", len(targets), inferred=is_inferred)
    else:
        draft.put("success_count", 0)
