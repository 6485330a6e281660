"""What the twins have in common: refusing, the status, and the standard columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from portfolio.legacy.ranges import as_utc, is_good_time
from portfolio.legacy.reasons import Reason, Unmappable
from portfolio.legacy.vocabulary import RETRYING, STATUSES, plain, trimmed
from tasktrail import Status
from tasktrail.migration.plan import Mapped, Refused

Row: TypeAlias = Mapping[str, Any]
"""A legacy row, by column."""

LEAST_ATTEMPTS: Final = 3
"""How many attempts a migrated row may have at least; what new rows get."""


@dataclass
class Draft:
    """A row of the target in the making.

    Attributes:
        values: the columns that are known so far.
        inferred: those of them that a fallback gave.
    """

    values: dict[str, object] = field(default_factory=dict)
    inferred: set[str] = field(default_factory=set)

    def put(self, column: str, value: object, *, inferred: bool = False) -> None:
        """Set a column.

        Args:
            column: its name.
            value: its value.
            inferred: whether a fallback gave it.
        """
        self.values[column] = value
        if inferred:
            self.inferred.add(column)


def judged(drafted: Callable[[Row], Draft], row: Row) -> Mapped | Refused:
    """Return what a row becomes, or that it is quarantined.

    Args:
        drafted: makes the row of the target, or raises ``Unmappable``.
        row: the legacy row.
    """
    try:
        draft = drafted(row)
    except Unmappable as error:
        return Refused("quarantined", error.reason.value)
    return Mapped(draft.values, frozenset(draft.inferred))


def status_of(row: Row) -> tuple[str, Status]:
    """Return a row's status in its plain spelling, and the state it becomes.

    Raises:
        Unmappable: it is unknown.
    """
    word = plain(row["status"])
    if word not in STATUSES:
        raise Unmappable(Reason.UNKNOWN_STATUS)
    return word, STATUSES[word]


def check_times(row: Row, reasons: Mapping[str, Reason]) -> None:
    """Make sure that times which are there can be right.

    Args:
        row: the legacy row.
        reasons: columns in the order in which they are looked at, and what is said of a bad one.

    Raises:
        Unmappable: one of them cannot.
    """
    for name, reason in reasons.items():
        if row[name] is not None and not is_good_time(row[name]):
            raise Unmappable(reason)


def put_standard(draft: Draft, status: Status, error: str | None, attempts: int) -> None:
    """Set the standard columns that are the same for all tables, but for the times.

    Args:
        draft: the row in the making.
        status: its state.
        error: the legacy error.
        attempts: how many attempts ended in an error.
    """
    draft.put("status", status.value)
    draft.put("error_message", error if error is not None and trimmed(error) else None)
    draft.put("attempts", attempts)
    draft.put("max_attempts", max(LEAST_ATTEMPTS, attempts if status.is_ended else attempts + 1))


def put_task_times(draft: Draft, status: Status, created: datetime, row: Row) -> None:
    """Set the times of a row of ``task_status``, which notes no end of its own.

    Args:
        draft: the row in the making.
        status: its state.
        created: when it was made, as far as that is known; without a time zone, like the row's own times.
        row: the legacy row.
    """
    is_guessed = row["updated_at"] is None
    updated_at = as_utc(row["updated_at"] or created)
    draft.put("created_at", as_utc(created), inferred=row["created_at"] is None)
    draft.put("updated_at", updated_at, inferred=is_guessed)
    put_end(draft, status, updated_at, is_guessed=is_guessed)
    put_start(draft, status, updated_at)


def put_end(draft: Draft, status: Status, moment: datetime, *, is_guessed: bool) -> None:
    """Set when the job ended, if it has: the clean-up of the new tables goes by it, so it is never missing.

    Args:
        draft: the row in the making.
        status: its state.
        moment: when.
        is_guessed: whether a fallback gave it.
    """
    draft.put("completed_at", moment if status.is_ended else None, inferred=status.is_ended and is_guessed)


def put_start(draft: Draft, status: Status, moment: datetime) -> None:
    """Set when the running attempt began; of attempts that have ended nothing is known.

    Args:
        draft: the row in the making.
        status: its state.
        moment: the best guess.
    """
    is_running = status is Status.PROCESSING
    draft.put("started_at", moment if is_running else None, inferred=is_running)


def attempts_of_task(word: str, status: Status) -> int:
    """Return how many attempts of a row of ``task_status`` failed: each row was one attempt.

    Args:
        word: the legacy status in its plain spelling.
        status: what it becomes.
    """
    return 1 if status is Status.FAILED or word == RETRYING else 0
