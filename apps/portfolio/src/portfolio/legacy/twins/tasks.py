"""``task_status``: which way a row goes, by its task type."""

from __future__ import annotations

from portfolio.legacy.reasons import Reason
from portfolio.legacy.twins.creation import etf_creation_twin
from portfolio.legacy.twins.rates import exchange_rate_twin
from portfolio.legacy.twins.standard import Row
from portfolio.legacy.vocabulary import ARCHIVED_TYPES, CREATION_TYPES, EXCHANGE_RATE_TYPE, plain
from tasktrail.migration.plan import Mapped, Refused


def is_exchange_rates(row: Row) -> bool:
    """Return whether a row of ``task_status`` is about exchange rates."""
    return plain(row["task_type"]) == EXCHANGE_RATE_TYPE


def is_creation(row: Row) -> bool:
    """Return whether a row of ``task_status`` is about the creation of an ETF."""
    return plain(row["task_type"]) in CREATION_TYPES


def task_status_twin(row: Row) -> Mapped | Refused:
    """Return what any row of ``task_status`` becomes, a row of whichever table.

    Args:
        row: of ``task_status``.
    """
    if is_exchange_rates(row):
        return exchange_rate_twin(row)
    if is_creation(row):
        return etf_creation_twin(row)
    reason = ARCHIVED_TYPES.get(plain(row["task_type"]))
    if reason is None:
        return Refused("quarantined", Reason.UNKNOWN_TYPE.value)
    return Refused("archived", reason)
