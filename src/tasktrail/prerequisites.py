"""Rows that wait for other rows, across domains.

A waiting row is PENDING without a due time. Maintenance gives it one when all its prerequisites are
COMPLETED, or cancels it when one of them FAILED, was CANCELLED or is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from sqlalchemy import Connection, DateTime, Select, func, select, text, true, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from tasktrail import sweeps
from tasktrail.errors import InvalidField, TrackingNotFound
from tasktrail.guards import CLOCK, Model, table_of, this_row
from tasktrail.library import library
from tasktrail.models import built_once
from tasktrail.registry import Domain, Registry
from tasktrail.states import ENDED, Status
from tasktrail.tracker import Database

IfUnmet: TypeAlias = Literal["cancel", "wait", "proceed"]


class Reference(Protocol):
    """Anything that names a tracking row, e.g. what ``enqueue`` returned."""

    @property
    def domain(self) -> str:
        """The row's domain."""
        ...

    @property
    def id(self) -> int:
        """The row's id."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class TrackingRef:
    """Names a tracking row.

    Attributes:
        domain: the row's domain.
        id: the row's id.
    """

    domain: str
    id: int

    def __str__(self) -> str:
        return f"{self.domain} {self.id}"


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """One row that another waits for.

    Attributes:
        ref: the row that must be COMPLETED.
        is_met: whether it is.
        if_unmet: what becomes of the waiting row when it never will be.
        is_current: whether the row's present attempt waits or waited for it. An attempt that failed since
            waited for it in vain; the next one has to see for itself.
    """

    ref: TrackingRef
    is_met: bool
    if_unmet: IfUnmet
    is_current: bool


def wait_for(
    db: Session | Connection,
    registry: Registry,
    schema: str | None,
    waiting: Reference,
    needed: Iterable[Reference],
    *,
    is_new: bool,
    if_unmet: IfUnmet = "cancel",
) -> bool:
    """Make a PENDING row wait for others; if all its prerequisites are met, it is due at once.

    Args:
        db: session or connection; the caller commits, together with the row.
        registry: the domains.
        schema: where the library's own tables are.
        waiting: the row that waits, PENDING.
        needed: the rows it waits for.
        is_new: the waiting row was added in this transaction, so nothing can wait for it yet.
        if_unmet: what happens when a needed row FAILED, was CANCELLED or is gone: ``"cancel"`` the waiting
            row; let it ``"wait"`` until an operator retries the needed one; or ``"proceed"`` all the same,
            so that the waiting row sees to it itself.

    Returns:
        Whether the row is held now.

    Raises:
        UnknownDomain: a needed row's domain is not registered.
        TrackingNotFound: a needed row does not exist.
        InvalidField: the row would wait for itself, directly or through others.
    """
    refs = sorted({TrackingRef(ref.domain, ref.id) for ref in needed})
    own = TrackingRef(waiting.domain, waiting.id)
    model = registry.get(own.domain).model
    if not is_new:
        # One at a time: two enqueues that each add half of a cycle would not see each other's half.
        db.execute(text("SELECT pg_advisory_xact_lock(hashtext('tasktrail prerequisites'))"))
        _refuse_cycle(db, schema, own, refs)
    by_domain: dict[str, list[int]] = {}
    for ref in refs:
        by_domain.setdefault(ref.domain, []).append(ref.id)
    table = library(schema).prerequisites
    for domain, ids in by_domain.items():
        met = _met(db, registry.get(domain), ids, if_unmet)
        edge = {"domain": own.domain, "tracking_id": own.id, "needs_domain": domain, "if_unmet": if_unmet}
        statement = insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=["domain", "tracking_id", "needs_domain", "needs_id"],
            set_={"if_unmet": statement.excluded.if_unmet, "met_at": None},
        )
        db.execute(statement, [{**edge, "needs_id": needed_id} for needed_id in ids])
        db.execute(
            update(table)
            .where(
                table.c.domain == own.domain,
                table.c.tracking_id == own.id,
                table.c.needs_domain == domain,
                table.c.needs_id == func.any(met),
            )
            .values(met_at=CLOCK)
        )
    if db.execute(sweeps.hold_if_prerequisites_unmet(model, schema), {"_ids": [own.id]}).first():
        return True
    db.execute(sweeps.make_due_if_prerequisites_met(model, schema), {"_ids": [own.id]})
    return False


@built_once
def _select_prerequisites(model: Model, schema: str | None) -> Select[Any]:
    needs = library(schema).prerequisites
    row = table_of(model)
    last_failure = row.c.attempt_log[-1]["end"].astext.cast(DateTime(timezone=True))
    is_current = func.coalesce(needs.c.met_at > last_failure, true())
    return (
        select(needs, is_current.label("is_current"))
        .join_from(needs, row, needs.c.tracking_id == row.c.id)
        .where(needs.c.domain == model.__tracking__.domain, this_row(row))
        .order_by(needs.c.needs_domain, needs.c.needs_id)
    )


def prerequisites_of(db: Database, model: Model, schema: str | None, tracking_id: int) -> list[Prerequisite]:
    """List the rows that a row waits for or waited for."""
    rows = db.execute(_select_prerequisites(model, schema), {"_row_id": tracking_id})
    return [
        Prerequisite(
            TrackingRef(row.needs_domain, row.needs_id),
            row.met_at is not None,
            row.if_unmet,
            row.is_current,
        )
        for row in rows
    ]


def dependents_of(db: Database, schema: str | None, needed: Reference) -> list[TrackingRef]:
    """List the rows that wait or waited for a row."""
    table = library(schema).prerequisites
    rows = db.execute(
        select(table.c.domain, table.c.tracking_id)
        .where(table.c.needs_domain == needed.domain, table.c.needs_id == needed.id)
        .order_by(table.c.domain, table.c.tracking_id)
    )
    return [TrackingRef(row.domain, row.tracking_id) for row in rows]


def _met(db: Database, domain: Domain, ids: list[int], if_unmet: IfUnmet) -> list[int]:
    """Return which of these rows are met already; all of them are kept from being deleted meanwhile."""
    table = table_of(domain.model)
    query = select(table.c.id, table.c.status).where(table.c.id == func.any(ids))
    states = {
        row.id: Status(row.status) for row in db.execute(query.with_for_update(read=True, key_share=True))
    }
    for needed_id in ids:
        if needed_id not in states:
            raise TrackingNotFound(
                domain.name, needed_id, "is named as a prerequisite, but there is no such row"
            )
    enough = ENDED if if_unmet == "proceed" else {Status.COMPLETED}
    return [needed_id for needed_id, status in states.items() if status in enough]


def _refuse_cycle(db: Database, schema: str | None, own: TrackingRef, refs: list[TrackingRef]) -> None:
    table = library(schema).prerequisites
    if own in refs:
        raise InvalidField("after", str(own), "a row cannot wait for itself")
    if not refs:
        return
    reached = (
        select(table.c.needs_domain.label("domain"), table.c.needs_id.label("id"))
        .where(tuple_(table.c.domain, table.c.tracking_id).in_([(ref.domain, ref.id) for ref in refs]))
        .cte("reached", recursive=True)
    )
    reached = reached.union(
        select(table.c.needs_domain, table.c.needs_id).where(
            table.c.domain == reached.c.domain, table.c.tracking_id == reached.c.id
        )
    )
    found = db.execute(
        select(reached.c.id).where(reached.c.domain == own.domain, reached.c.id == own.id).limit(1)
    ).first()
    if found is not None:
        names = ", ".join(str(ref) for ref in refs)
        raise InvalidField("after", names, f"one of these waits for {own} already; that would be a cycle")
