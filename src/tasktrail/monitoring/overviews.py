"""How all domains are, at one moment, in as many statements as one domain takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasktrail.monitoring.counts import StateCounts, counts_of
from tasktrail.monitoring.history import History, histories
from tasktrail.monitoring.late import OldestPending, late_counts, oldest_pending_of
from tasktrail.monitoring.reading import CappedCount
from tasktrail.monitoring.windows import Source, Window
from tasktrail.registry import Domain


@dataclass(frozen=True, slots=True)
class Overview:
    """How one domain is.

    Attributes:
        domain: the domain's name.
        counts: its rows by state.
        oldest: the row that is due for longest; ``None`` when none is due.
        stuck: how many rows ``stuck`` would return.
        overdue: how many rows ``overdue`` would return.
        history: what happened in the window.
    """

    domain: str
    counts: StateCounts
    oldest: OldestPending | None
    stuck: CappedCount
    overdue: CappedCount
    history: History


def overview(
    db: Source, domains: Iterable[Domain], window: Window, *, lease: float, bound: float
) -> list[Overview]:
    """Return how domains are; the figures are those of the functions for one domain.

    Args:
        db: what to read from.
        domains: the domains, of one application.
        window: the window of their histories.
        lease: how old a heartbeat may be, in seconds; that of the settings.
        bound: for how long a row may be due, in seconds.
    """
    chosen = list(domains)
    if not chosen:
        return []
    return [
        Overview(domain.name, counts, oldest, stuck, overdue, history)
        for domain, counts, oldest, (stuck, overdue), history in zip(
            chosen,
            counts_of(db, chosen),
            oldest_pending_of(db, chosen),
            late_counts(db, chosen, lease=lease, bound=bound),
            histories(db, chosen, window),
            strict=True,
        )
    ]
