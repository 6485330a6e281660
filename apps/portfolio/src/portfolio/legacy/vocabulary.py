"""The words of the old system and what they mean: statuses, task types, and how their spelling varies."""

from __future__ import annotations

import string
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tasktrail import Status

BLANKS: Final = " \t\n\x0b\x0c\r"
"""What is taken off both ends of a word; nothing else is, so that SQL and Python agree."""

_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UPPER: Final = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)

RETRYING: Final = "retrying"
COMPLETED_WITH_ERRORS: Final = "completed_with_errors"

STATUSES: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "pending": Status.PENDING,
        RETRYING: Status.PENDING,
        "processing": Status.PROCESSING,
        "running": Status.PROCESSING,
        "started": Status.PROCESSING,
        "completed": Status.COMPLETED,
        "success": Status.COMPLETED,
        "done": Status.COMPLETED,
        COMPLETED_WITH_ERRORS: Status.COMPLETED,
        "failed": Status.FAILED,
        "error": Status.FAILED,
        "cancelled": Status.CANCELLED,
        "canceled": Status.CANCELLED,
        "revoked": Status.CANCELLED,
    }
)
"""Each status of the old system, in its plain spelling, and the state it becomes; any other is unknown."""

EXCHANGE_RATE_TYPE: Final = "exchange_rate_update"

CREATION_TYPES: Final = ("etf_creation", "etf_pension_processing")

ARCHIVED_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        # Their results were written to the portfolio itself.
        "portfolio_recalculation": "archived_portfolio_recalculation",
        # The cache they filled is gone.
        "cache_warmup": "archived_cache_warmup",
        # A tool of one day; the rows it imported speak for themselves.
        "csv_import": "archived_csv_import",
    }
)
"""Task types that are not migrated on purpose, and the reason in the ledger."""


def trimmed(word: str) -> str:
    """Return a word without blanks at both ends."""
    return word.strip(BLANKS)


def lower(word: str) -> str:
    """Return a word with ``A``-``Z`` as small letters and all else as it is."""
    return word.translate(_LOWER)


def upper(word: str) -> str:
    """Return a word with ``a``-``z`` as capital letters and all else as it is."""
    return word.translate(_UPPER)


def plain(word: object) -> str:
    """Return a word of the old system in its plain spelling; of what is no text, the empty word.

    Args:
        word: what a column holds.
    """
    return lower(trimmed(word)) if isinstance(word, str) else ""
