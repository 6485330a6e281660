"""What pages and API say of domains: the same functions for both, so that they agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import select

from tasktrail.guards import table_of
from tasktrail.masking import mask_text
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import (
    CappedCount,
    FailureGroup,
    FailureGroups,
    History,
    OldestPending,
    Source,
    StateCounts,
    Window,
    fingerprint,
)
from tasktrail.registry import Domain
from tasktrail.settings import Settings

OVERDUE: Final = 2
"""So many times ``redispatch_after`` a due row may wait before it counts as overdue."""


@dataclass(frozen=True, slots=True)
class DomainFigures:
    """How a domain does.

    Attributes:
        domain: the domain's name.
        counts: its rows by state.
        oldest: the row that is due for longest.
        stuck: how many PROCESSING rows there are whose lease ran out.
        overdue: how many PENDING rows nobody takes.
        history: what happened in the window.
    """

    domain: str
    counts: StateCounts
    oldest: OldestPending | None
    stuck: CappedCount
    overdue: CappedCount
    history: History


@dataclass(frozen=True, slots=True)
class Overview:
    """How all domains do, at one moment.

    Attributes:
        now: the moment, by the server's clock.
        window: the window of the histories.
        domains: each of them.
    """

    now: datetime
    window: Window
    domains: tuple[DomainFigures, ...]


@dataclass(frozen=True, slots=True)
class Failures:
    """What failed in all domains.

    Attributes:
        now: the moment, by the server's clock.
        window: the window.
        domains: each of them; their fingerprints are those of masked errors.
    """

    now: datetime
    window: Window
    domains: tuple[FailureGroups, ...]

    @property
    def groups(self) -> list[FailureGroup]:
        """The groups of all domains, the largest first."""
        found = [group for one in self.domains for group in one.groups]
        return sorted(found, key=lambda group: (-group.rows, group.domain, group.fingerprint))

    @property
    def rows(self) -> int:
        """How many rows failed."""
        return sum(one.rows for one in self.domains)

    @property
    def more_groups(self) -> int:
        """How many groups are not listed."""
        return sum(one.more_groups for one in self.domains)


def overview(db: Source, domains: Iterable[Domain], period: str, settings: Settings) -> Overview:
    """Read how domains do.

    Args:
        db: what to read from.
        domains: the domains.
        period: how far back the histories reach.
        settings: say what stuck and overdue means.
    """
    now = queries.server_time(db)
    window = Window.of(period, now)
    return Overview(now, window, tuple(_figures(db, domain, window, settings) for domain in domains))


def failures(db: Source, domains: Iterable[Domain], period: str) -> Failures:
    """Read what failed in a window, grouped by what went wrong."""
    now = queries.server_time(db)
    window = Window.of(period, now)
    found = tuple(_masked(db, domain, queries.failures(db, domain, window)) for domain in domains)
    return Failures(now, window, found)


def _masked(db: Source, domain: Domain, found: FailureGroups) -> FailureGroups:
    """Say what errors have in common as they are shown.

    A secret is found in a whole error only: where its digits are folded, it does not look like one any more.
    """
    table = table_of(domain.model)
    ids = [group.example_id for group in found.groups]
    query = select(table.c.id, table.c.error_message).where(table.c.id.in_(ids))
    errors: dict[int, str | None] = {row.id: row.error_message for row in db.execute(query)} if ids else {}
    groups = [
        replace(group, fingerprint=fingerprint(mask_text(errors.get(group.example_id) or "")))
        for group in found.groups
    ]
    return replace(found, groups=tuple(groups))


def _figures(db: Source, domain: Domain, window: Window, settings: Settings) -> DomainFigures:
    return DomainFigures(
        domain=domain.name,
        counts=queries.counts(db, domain),
        oldest=queries.oldest_pending(db, domain),
        stuck=queries.stuck(db, domain, lease=settings.lease, limit=1).count,
        overdue=queries.overdue(db, domain, bound=OVERDUE * settings.redispatch_after, limit=1).count,
        history=queries.history(db, domain, window),
    )
