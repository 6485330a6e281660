"""What pages and API say of domains: the same functions for both, so that they agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select

from tasktrail.guards import table_of
from tasktrail.masking import mask_text
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import (
    FailureGroup,
    FailureGroups,
    Source,
    Window,
    fingerprint,
)
from tasktrail.registry import Domain
from tasktrail.settings import Settings


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
    domains: tuple[queries.Overview, ...]


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
    bound = settings.overdue_after
    return Overview(
        now, window, tuple(queries.overview(db, domains, window, lease=settings.lease, bound=bound))
    )


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
