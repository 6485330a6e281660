"""How many rows there are in each state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    DateTime,
    ScalarSelect,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)

from tasktrail.guards import Model, in_state, table_of
from tasktrail.models import built_once
from tasktrail.monitoring.rolled import RolledUp, rolled_up, schema_of
from tasktrail.monitoring.rolled import completed as rolled_completed
from tasktrail.monitoring.windows import Source
from tasktrail.registry import Domain
from tasktrail.rollups import MINUTE, ceiling
from tasktrail.states import Status

MOVABLE: Final = (Status.PROCESSING, Status.FAILED, Status.CANCELLED)
"""States beside PENDING that a row may still leave."""

EVER: Final = (datetime.min.replace(year=1970, tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
"""From before the first row until after the last."""


@dataclass(frozen=True, slots=True)
class StateCounts:
    """The rows of one domain by state.

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
    """Count the rows of a domain by state; see ``counts_of``."""
    return counts_of(db, [domain])[0]


def counts_of(db: Source, domains: Sequence[Domain]) -> list[StateCounts]:
    """Count the rows of domains by state, with as many statements as for one.

    Rows that may still move are counted on their indexes. COMPLETED is final, and by far the most: those rows
    are counted from the rollups, and only the newest and the oldest ones themselves. A COMPLETED row that
    somebody deletes, or adds with an old ``completed_at``, is noticed when the rollups notice it (ADR 34).

    Args:
        db: what to read from.
        domains: the domains, of one application.
    """
    if not domains:
        return []
    spans = {name: _span(rolled) for name, rolled in rolled_up(db, domains).items()}
    completed = rolled_completed(db, schema_of(domains), spans)
    parameters = {}
    for at, domain in enumerate(domains):
        parameters[f"since{at}"], parameters[f"until{at}"] = spans.get(domain.name, EVER)
    found = []
    for row in db.execute(_counted(tuple(domain.model for domain in domains)), parameters):
        values = row._asdict()
        domain = domains[values.pop("at")]
        rolled = completed.get(domain.name, 0) if domain.name in spans else _count_completed(db, domain)
        found.append(StateCounts(domain=domain.name, completed=rolled + values.pop("unrolled"), **values))
    return found


def _span(rolled: RolledUp) -> tuple[datetime, datetime]:
    """Return the minutes whose COMPLETED rows the rollups have, and none of whose rows may be gone."""
    since = max(rolled.since, ceiling(rolled.kept_from or rolled.since, MINUTE))
    return since, max(since, rolled.until)


def _count_completed(db: Source, domain: Domain) -> int:
    table = table_of(domain.model)
    query = select(func.count()).select_from(table).where(in_state(table, Status.COMPLETED))
    return db.execute(query).scalar_one()


@built_once
def _counted(models: tuple[Model, ...]) -> CompoundSelect[Any]:
    """Count what is not counted from rollups: rows that may move, and COMPLETED ones of other times."""
    return union_all(*(_counted_of(at, model) for at, model in enumerate(models)))


def _counted_of(at: int, model: Model) -> Select[Any]:
    table = table_of(model)
    moment = DateTime(timezone=True)
    waiting = (
        select(
            func.count().label("pending"),
            func.count().filter(table.c.next_attempt_at.is_(None)).label("held"),
            func.count().filter(table.c.next_attempt_at <= func.now()).label("due"),
        )
        .where(in_state(table, Status.PENDING))
        .subquery()
    )

    def rows(*guard: ColumnElement[bool]) -> ScalarSelect[int]:
        return select(func.count()).select_from(table).where(*guard).scalar_subquery()

    ended, is_completed = table.c.completed_at, in_state(table, Status.COMPLETED)
    older = rows(is_completed, ended < bindparam(f"since{at}", type_=moment))
    newer = rows(is_completed, ended >= bindparam(f"until{at}", type_=moment))
    return select(
        literal_column(str(at)).label("at"),
        waiting,
        (older + newer).label("unrolled"),
        *(rows(in_state(table, status)).label(status.lower()) for status in MOVABLE),
    )
