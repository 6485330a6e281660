"""``task_status``, ETF creation -> ``etf_creation_tracking``."""

from __future__ import annotations

import re
from typing import Any, Final

from portfolio.legacy.metadata import read_metadata
from portfolio.legacy.ranges import fits_int
from portfolio.legacy.reasons import Reason, Unmappable
from portfolio.legacy.twins.rates import TASK_TIMES
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
from portfolio.legacy.vocabulary import trimmed
from tasktrail.migration.plan import Mapped, Refused

LONGEST_ID: Final = 255
"""Longest id of an ETF, in characters."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")


def etf_creation_twin(row: Row) -> Mapped | Refused:
    """Return what a task that created an ETF becomes.

    Args:
        row: of ``task_status``.
    """
    return judged(_drafted, row)


def _drafted(row: Row) -> Draft:
    word, status = status_of(row)
    check_times(row, TASK_TIMES)
    metadata = read_metadata(row["task_metadata"])
    if metadata.shape == "scalar or array":
        raise Unmappable(Reason.METADATA_NOT_AN_OBJECT)
    named = _etf_id(metadata.get("etf_id"))
    if not fits_int(row["resource_id"]):
        raise Unmappable(Reason.RESOURCE_ID_OUT_OF_RANGE)
    known = row["created_at"] or row["updated_at"]
    if known is None:
        raise Unmappable(Reason.CREATED_AT_MISSING)

    draft = Draft()
    draft.put("etf_id", named or str(row["resource_id"]), inferred=named is None)
    draft.put("resource_id", row["resource_id"])
    draft.put("task_metadata", dict(metadata.fields) if metadata.shape == "object" else None)
    put_standard(draft, status, row["error"], attempts_of_task(word, status))
    put_task_times(draft, status, known, row)
    return draft


def _etf_id(value: Any) -> str | None:
    if value is None:
        return None
    etf_id = trimmed(value) if isinstance(value, str) else ""
    if not etf_id or _CONTROL.search(etf_id):
        raise Unmappable(Reason.ETF_ID_MALFORMED)
    if len(etf_id) > LONGEST_ID:
        raise Unmappable(Reason.ETF_ID_TOO_LONG)
    return etf_id
