"""The five states of a tracking row and every transition between them.

``TRANSITIONS`` is the only list; each group of states below is derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Status(StrEnum):
    """State of a tracking row, stored as its name."""

    PENDING = "PENDING"
    """Waits: for a worker, for its due time, or for its prerequisites."""
    PROCESSING = "PROCESSING"
    """One worker owns the row and renews its lease."""
    COMPLETED = "COMPLETED"
    """The job did what it was asked; final."""
    FAILED = "FAILED"
    """The job will not be tried again unless an operator says so."""
    CANCELLED = "CANCELLED"
    """Somebody no longer wanted the job."""

    @property
    def is_ended(self) -> bool:
        """Whether no worker will touch the row."""
        return self in ENDED


TRANSITIONS: Final[Mapping[tuple[Status, Status], str]] = MappingProxyType(
    {
        (Status.PENDING, Status.PROCESSING): "a worker claimed the row",
        (Status.PENDING, Status.CANCELLED): "cancelled before it started",
        (Status.PROCESSING, Status.COMPLETED): "the attempt succeeded",
        (Status.PROCESSING, Status.FAILED): "the attempt failed and no attempt is left, or none is worth it",
        (Status.PROCESSING, Status.CANCELLED): "cancelled while it ran",
        (
            Status.PROCESSING,
            Status.PENDING,
        ): "a failed or lost attempt is repeated, or a worker shut down",
        (Status.FAILED, Status.PENDING): "an operator retries it",
        (Status.CANCELLED, Status.PENDING): "an operator retries it",
    }
)


def sources(target: Status) -> frozenset[Status]:
    """Return the states from which a row may reach ``target``."""
    return frozenset(source for source, reached in TRANSITIONS if reached is target)


def targets(source: Status) -> frozenset[Status]:
    """Return the states that a row in ``source`` may reach."""
    return frozenset(reached for start, reached in TRANSITIONS if start is source)


REVIVABLE: Final = sources(Status.PENDING) - {Status.PROCESSING}
"""Ended, but an operator may start them again."""

ENDED: Final = frozenset(
    status for status in Status if not targets(status) & {Status.PROCESSING, Status.COMPLETED}
)
"""No worker will touch these."""

ACTIVE: Final = frozenset(Status) - ENDED
"""Work that is still to be finished."""

FINAL: Final = frozenset(status for status in Status if not targets(status))
"""Nothing leads out of these."""
