"""Watching rows from outside until they have ended, together with the rows that they wait for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portfolio.models import ExchangeRateUpdateTracking
from tasktrail import Enqueued, Status, TrackingRef, Trail

ENDED: Final = [status.value for status in Status if status.is_ended]

LEAVES: Final = frozenset({ExchangeRateUpdateTracking.__tracking__.domain})
"""Domains whose rows wait for nothing."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A row as it is now.

    Attributes:
        ref: which row.
        status: its state.
        error_message: what is wrong with it.
    """

    ref: TrackingRef
    status: Status
    error_message: str | None


class Family:
    """Some rows and all that they wait for, directly or through others."""

    def __init__(self, trail: Trail, roots: Iterable[Enqueued | TrackingRef]) -> None:
        self._trail = trail
        self._roots = [TrackingRef(root.domain, root.id) for root in roots]

    def count(self) -> tuple[int, int]:
        """Return how many rows have ended, and how many there are by now."""
        ids: dict[str, list[int]] = {}
        for ref in self._members():
            ids.setdefault(ref.domain, []).append(ref.id)
        ended = 0
        with self._trail.engines.errors(), Session(self._trail.engines.sync) as db:
            for domain, of_domain in ids.items():
                model = self._trail.registry.get(domain).model
                query = select(func.count()).where(model.id.in_(of_domain), model.status.in_(ENDED))
                ended += db.scalar(query) or 0
        return ended, sum(len(of_domain) for of_domain in ids.values())

    def rows(self) -> list[Watched]:
        """Return the rows that were asked for, as they are now; what they wait for is left out."""
        found: dict[TrackingRef, Watched] = {}
        with self._trail.engines.errors(), Session(self._trail.engines.sync) as db:
            for domain in sorted({ref.domain for ref in self._roots}):
                model = self._trail.registry.get(domain).model
                ids = [ref.id for ref in self._roots if ref.domain == domain]
                query = select(model.id, model.status, model.error_message).where(model.id.in_(ids))
                for row in db.execute(query):
                    ref = TrackingRef(domain, row.id)
                    found[ref] = Watched(ref, Status(row.status), row.error_message)
        return [found[ref] for ref in self._roots if ref in found]

    def has_ended(self) -> bool:
        """Return whether the rows that were asked for have ended."""
        return all(row.status.is_ended for row in self.rows())

    def _members(self) -> set[TrackingRef]:
        members: set[TrackingRef] = set()
        new = set(self._roots)
        while new:
            members |= new
            needed = {
                one.ref
                for ref in new
                if ref.domain not in LEAVES
                for one in self._trail.task_of(ref.domain).prerequisites(ref.id)
            }
            new = needed - members
        return members
