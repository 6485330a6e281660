"""The rules of the legacy tables, line by line, as data: a legacy row, and what becomes of it.

Nothing here knows how a row is judged: the same cases are for the twins in Python and for the SQL that moves
the rows. In a row JSON is text, and so is a time that Python cannot hold. Some rows can only stand in tables
that are looser than those of revision 0001; see ``loose.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, Literal

Row = dict[str, Any]

NOON = datetime(2024, 3, 1, 12, 0, 0, 250_001)
LATER = datetime(2024, 3, 1, 12, 0, 7)
NOON_UTC = NOON.replace(tzinfo=UTC)
LATER_UTC = LATER.replace(tzinfo=UTC)
DAY = date(2024, 3, 1)
MIDNIGHT_UTC = datetime(2024, 3, 1, tzinfo=UTC)
USUAL = ["USD", "GBP", "CHF", "JPY", "SEK", "NOK", "DKK", "CAD", "AUD", "PLN"]

RATES: Final = "exchange_rate_update_tracking"
CREATION: Final = "etf_creation_tracking"
UPDATES: Final = "etf_updates"
DAILY: Final = "daily_update_tracking"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A legacy row, and what becomes of it.

    Attributes:
        line: the line of LEGACY.md, or the rule, that it is about.
        source: the legacy table.
        row: all its columns, but for ``id`` where that does not matter.
        disposition: ``migrated``, ``quarantined`` or ``archived``.
        target: the table of the schema ``tracking``, if it is migrated.
        values: what some columns of the new row hold; of all columns where ``is_whole``.
        inferred: exactly the columns that a fallback gave; None where that is another case's business.
        reason: the code, if it is not migrated.
        is_whole: whether ``values`` name all columns but those that the migration keeps.
    """

    line: str
    source: Literal["task_status", "etf_updates", "daily_update_tracking"]
    row: Row
    disposition: Literal["migrated", "quarantined", "archived"]
    target: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    inferred: frozenset[str] | None = None
    reason: str | None = None
    is_whole: bool = False

    def __str__(self) -> str:
        return f"{self.line}: {self.reason or self.target}"


def task(**columns: Any) -> Row:
    """A row of task_status: a completed update of the rates of 2024-03-01, unless told otherwise."""
    return {
        "task_type": "exchange_rate_update",
        "status": "completed",
        "resource_id": 20240301,
        "error": None,
        "task_metadata": '{"date": "2024-03-01", "currencies": ["USD", "CHF"]}',
        "created_at": NOON,
        "updated_at": LATER,
        **columns,
    }


def creation(**columns: Any) -> Row:
    """A row of task_status: the completed creation of an ETF, unless told otherwise."""
    made = {"task_type": "etf_creation", "resource_id": 12, "task_metadata": '{"etf_id": "EUNL.DE"}'}
    return task(**{**made, **columns})


def etf_update(**columns: Any) -> Row:
    """A row of etf_updates: a completed update of an ETF that exists, unless told otherwise."""
    return {
        "id": 7,
        "etf_id": "EUNL.DE",
        "update_type": "prices_only",
        "start_date": date(2024, 2, 1),
        "end_date": date(2024, 2, 29),
        "status": "completed",
        "created_at": NOON,
        "completed_at": LATER,
        "error": None,
        "missing_dates": None,
        "retry_count": 0,
        "notes": None,
        **columns,
    }


def daily(**columns: Any) -> Row:
    """A row of daily_update_tracking: data were found, unless told otherwise."""
    return {
        "date": DAY,
        "update_type": "exchange_rates",
        "attempted": True,
        "data_found": True,
        "notes": None,
        **columns,
    }


ETFS: Final = ("EUNL.DE", "MTUM", " padded ")
"""The ETFs that exist."""


def source_of(row: Row) -> Any:
    """Return the table that a row is of."""
    if "task_type" in row:
        return "task_status"
    return "etf_updates" if "etf_id" in row else "daily_update_tracking"


def target_of(row: Row) -> str:
    """Return the table that a row goes to when it is migrated."""
    if "task_type" in row:
        return RATES if row["task_type"].strip().lower() == "exchange_rate_update" else CREATION
    return UPDATES if "etf_id" in row else DAILY


def migrated(
    line: str, row: Row, /, inferred: str | None = None, *, is_whole: bool = False, **values: Any
) -> Case:
    """A row that is migrated; ``inferred`` names its columns with blanks between, "" for none."""
    return Case(
        line=line,
        source=source_of(row),
        row=row,
        disposition="migrated",
        target=target_of(row),
        values=values,
        inferred=None if inferred is None else frozenset(inferred.split()),
        is_whole=is_whole,
    )


def quarantined(line: str, row: Row, reason: str) -> Case:
    """A row that somebody is to look at."""
    return Case(line=line, source=source_of(row), row=row, disposition="quarantined", reason=reason)


def archived(line: str, row: Row, reason: str) -> Case:
    """A row of a kind that is not migrated on purpose."""
    return Case(line=line, source=source_of(row), row=row, disposition="archived", reason=reason)
