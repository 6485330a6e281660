"""How many rows there are in each state."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from tasktrail.guards import in_state, table_of
from tasktrail.monitoring.windows import Source
from tasktrail.registry import Domain
from tasktrail.states import Status


@dataclass(frozen=True, slots=True)
class StateCounts:
    """The rows of one domain by state, exact.

    Attributes:
        domain: the domain's name.
        pending: those that wait.
        processing: those that a worker has.
        completed: those that did what they were asked.
        failed: those that are not tried again by themselves.
        cancelled: those that nobody wanted any more.
        held: PENDING ones without a due time: they wait for other rows.
        due: PENDING ones whose due time has come.
    """

    domain: str
    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    held: int
    due: int

    @property
    def total(self) -> int:
        """All rows of the domain."""
        return sum(self.by_state.values())

    @property
    def by_state(self) -> dict[Status, int]:
        """The counts by state."""
        return {
            Status.PENDING: self.pending,
            Status.PROCESSING: self.processing,
            Status.COMPLETED: self.completed,
            Status.FAILED: self.failed,
            Status.CANCELLED: self.cancelled,
        }


def counts(db: Source, domain: Domain) -> StateCounts:
    """Count the rows of a domain by state.

    Args:
        db: what to read from.
        domain: the domain.
    """
    table = table_of(domain.model)
    rows = db.execute(select(table.c.status, func.count()).group_by(table.c.status))
    found: dict[str, int] = {str(status): count for status, count in rows}
    pending = in_state(table, Status.PENDING)
    held, due = db.execute(
        select(
            func.count().filter(table.c.next_attempt_at.is_(None)),
            func.count().filter(table.c.next_attempt_at <= func.now()),
        ).where(pending)
    ).one()
    by_state = {status.lower(): found.get(status, 0) for status in Status}
    return StateCounts(domain=domain.name, held=held, due=due, **by_state)
