"""The set-based writes of maintenance: each takes one bounded batch, under a guard, skipping locked rows.

The rows of a batch are picked by a subselect with ``FOR UPDATE SKIP LOCKED``, so a sweep never waits for a
worker, and the guard is part of the pick: of two sweeps at once, each row is taken by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Delete,
    Double,
    Integer,
    Select,
    String,
    Table,
    Text,
    bindparam,
    case,
    delete,
    exists,
    extract,
    func,
    literal,
    null,
    select,
    true,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from tasktrail.guards import (
    CLOCK,
    Model,
    Write,
    cancelled,
    failure,
    in_state,
    is_now,
    let_go,
    literal_state,
    revived,
    table_of,
)
from tasktrail.library import library
from tasktrail.models import built_once
from tasktrail.partitioning import DAY, first_id
from tasktrail.states import ACTIVE, ENDED, REVIVABLE, Status

MOST_PATIENCE: Final = 16
"""How many times ``redispatch_after`` a message that may be lost is waited for, at most."""


def _seconds(name: str) -> ColumnElement[Any]:
    return func.make_interval(0, 0, 0, 0, 0, 0, bindparam(name, type_=Double()))


def _first_id_of_partition_before(days: int, ago: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the first id of the partition before that for rows which were made so long ago."""
    epoch = extract("epoch", func.now() - ago)
    return (func.floor(epoch / (days * DAY)).cast(BigInteger) - 1) * first_id(days)


def _batch(table: Table, *guard: ColumnElement[bool], oldest_first: ColumnElement[Any]) -> Select[Any]:
    return (
        select(table.c.id)
        .where(*guard)
        .order_by(oldest_first)
        .limit(bindparam("_batch", type_=Integer()))
        .with_for_update(skip_locked=True)
    )


@built_once
def take_due_for_dispatch(model: Model) -> Write:
    """Mark a batch of due rows as dispatched, before their messages are sent.

    Due and never dispatched, or dispatched so long ago that the message may be lost. How long that is doubles
    with each dispatch, up to ``MOST_PATIENCE`` times: a row goes out again once it waited as long as it had
    at the last time. While the queue has not reached the rows of that due time, it is merely long, and more
    messages would make it longer.
    """
    table = table_of(model)
    since = func.greatest(table.c.dispatched_at, table.c.next_attempt_at)
    waited = func.greatest(_seconds("_redispatch_after"), table.c.dispatched_at - table.c.next_attempt_at)
    patience = func.least(waited, MOST_PATIENCE * _seconds("_redispatch_after"))
    reached = bindparam("_reached", None, type_=DateTime(timezone=True))
    is_queue_past_it = func.coalesce(reached > table.c.next_attempt_at, true())
    lost = table.c.dispatched_at.is_(None) | ((since + patience <= func.now()) & is_queue_past_it)
    batch = _batch(
        table,
        in_state(table, Status.PENDING),
        table.c.next_attempt_at <= func.now(),
        lost,
        oldest_first=table.c.next_attempt_at,
    )
    return (
        update(table)
        .where(table.c.id.in_(batch))
        .values(dispatched_at=CLOCK)
        .returning(table.c.id, table.c.celery_task_id, table.c.dispatched_at)
    )


@built_once
def newest_due_taken_since(model: Model) -> Select[Any]:
    """Read the newest due time among the running rows that were taken lately: how far the queue has come."""
    table = table_of(model)
    return select(func.max(table.c.next_attempt_at)).where(
        in_state(table, Status.PROCESSING), table.c.started_at > func.now() - _seconds("_redispatch_after")
    )


@built_once
def forget_dispatch_if_unchanged(model: Model) -> Write:
    """Take back the mark of a row whose message could not be sent."""
    table = table_of(model)
    return (
        update(table)
        .where(
            table.c.id == bindparam("_row_id"),
            is_now(table, Status.PENDING),
            table.c.dispatched_at == bindparam("_marked_at"),
        )
        .values(dispatched_at=null())
        .returning(table.c.id)
    )


@built_once
def renew_leases_if_owned(model: Model) -> Write:
    """Renew the leases of all rows that a process owns; returns those it still does."""
    table = table_of(model)
    fences = (
        func.unnest(
            bindparam("_fence_ids", type_=ARRAY(BigInteger)),
            bindparam("_fence_attempts", type_=ARRAY(Integer)),
            bindparam("_fence_celery_task_ids", type_=ARRAY(String)),
            bindparam("_fence_started_ats", type_=ARRAY(DateTime(timezone=True))),
        )
        .table_valued("id", "attempts", "celery_task_id", "started_at")
        .render_derived(name="fences")
    )
    return (
        update(table)
        .where(
            table.c.id == fences.c.id,
            is_now(table, Status.PROCESSING),
            table.c.attempts == fences.c.attempts,
            table.c.celery_task_id.is_not_distinct_from(fences.c.celery_task_id),
            table.c.started_at == fences.c.started_at,
        )
        .values(heartbeat_at=CLOCK)
        .returning(table.c.id)
    )


@built_once
def rescue_if_lease_expired(model: Model) -> Write:
    """PROCESSING with a lease that ran out -> PENDING or FAILED, counting and logging a lost attempt."""
    table = table_of(model)
    batch = _batch(
        table,
        in_state(table, Status.PROCESSING),
        table.c.heartbeat_at < func.now() - _seconds("_lease"),
        oldest_first=table.c.heartbeat_at,
    )
    is_last = bindparam("_gives_up", type_=Boolean()) | (table.c.attempts + 1 >= table.c.max_attempts)
    exponent = func.least(table.c.attempts, bindparam("_exponent_limit", type_=Integer()))
    growth = func.power(bindparam("_factor", type_=Double()), exponent)
    delay = func.least(bindparam("_base", type_=Double()) * growth, bindparam("_cap", type_=Double()))
    dice = case((bindparam("_jitter", type_=Boolean()), func.random()), else_=literal(1.0, Double()))
    due = CLOCK + func.make_interval(0, 0, 0, 0, 0, 0, delay * dice)
    return (
        update(table)
        .where(table.c.id.in_(batch))
        .values(
            status=case((is_last, literal_state(Status.FAILED)), else_=literal_state(Status.PENDING)),
            completed_at=case((is_last, CLOCK), else_=null()),
            next_attempt_at=case((is_last, table.c.next_attempt_at), else_=due),
            dispatched_at=null(),
            **failure(table, literal("lost", String())),
            **let_go(),
        )
        .returning(table.c.id, table.c.status)
    )


@built_once
def prune_if_ended(model: Model, schema: str | None) -> ReturningDelete[Any]:
    """Delete a batch of rows that ended before the retention, unless another row still waits for them.

    Nor while a migration holds the domain: its rows are a mirror of the legacy ones, and gone when those go.
    """
    table = table_of(model)
    needs, migrations = library(schema).prerequisites, library(schema).migrations
    old = func.now() - _seconds("_retention")
    days = model.__tracking__.partition_days
    # A partition goes as a whole, so its rows wait for it, and for those among them that ended late.
    is_in_time = (
        true() if days is None else table.c.id < _first_id_of_partition_before(days, _seconds("_retention"))
    )
    awaited = exists().where(
        needs.c.needs_domain == model.__tracking__.domain,
        needs.c.needs_id == table.c.id,
        needs.c.met_at.is_(None),
    )
    domain = literal(model.__tracking__.domain, String())
    held = exists().where(migrations.c.is_holding, domain == func.any(migrations.c.domains))
    batch = _batch(
        table,
        in_state(table, *ENDED),
        table.c.created_at < old,
        table.c.completed_at < old,
        is_in_time,
        ~awaited,
        ~held,
        oldest_first=table.c.created_at,
    )
    return delete(table).where(table.c.id.in_(batch)).returning(table.c.id)


@built_once
def forget_prerequisites_of_absent(model: Model, schema: str | None) -> Delete:
    """Delete the prerequisites of rows that are no longer there."""
    table = table_of(model)
    needs = library(schema).prerequisites
    return delete(needs).where(
        needs.c.domain == model.__tracking__.domain,
        needs.c.tracking_id == func.any(bindparam("_ids")),
        ~exists().where(table.c.id == needs.c.tracking_id),
    )


@built_once
def meet_prerequisites_on(model: Model, schema: str | None) -> ReturningUpdate[Any]:
    """Mark prerequisites on rows of this domain as met: COMPLETED, or ended where that will do."""
    table = table_of(model)
    needs = library(schema).prerequisites
    return (
        update(needs)
        .where(
            needs.c.needs_domain == model.__tracking__.domain,
            needs.c.met_at.is_(None),
            needs.c.needs_id == table.c.id,
            in_state(table, Status.COMPLETED) | (in_state(table, *ENDED) & (needs.c.if_unmet == "proceed")),
        )
        .values(met_at=CLOCK)
        .returning(needs.c.domain, needs.c.tracking_id)
    )


@built_once
def meet_prerequisites_on_absent(model: Model, schema: str | None) -> ReturningUpdate[Any]:
    """Mark prerequisites on rows of this domain that are gone as met, where the waiting row is to proceed."""
    table = table_of(model)
    needs = library(schema).prerequisites
    return (
        update(needs)
        .where(
            needs.c.needs_domain == model.__tracking__.domain,
            needs.c.met_at.is_(None),
            needs.c.if_unmet == "proceed",
            ~exists().where(table.c.id == needs.c.needs_id),
        )
        .values(met_at=CLOCK)
        .returning(needs.c.domain, needs.c.tracking_id)
    )


def _waiting_with(
    table: Table, model: Model, needs: Table, condition: ColumnElement[bool]
) -> ColumnElement[bool]:
    return exists().where(
        needs.c.domain == model.__tracking__.domain, needs.c.tracking_id == table.c.id, condition
    )


@built_once
def lock_rows(model: Model) -> Select[Any]:
    """Wait for whoever writes to these rows, and keep others from it until the transaction ends."""
    table = table_of(model)
    return (
        select(table.c.id)
        .where(table.c.id == func.any(bindparam("_ids")))
        .order_by(table.c.id)
        .with_for_update(key_share=True)
    )


@built_once
def make_due_if_prerequisites_met(model: Model, schema: str | None) -> Write:
    """Give held rows their due time once all their prerequisites are met; no message is on its way yet."""
    table = table_of(model)
    needs = library(schema).prerequisites
    met = needs.c.met_at.is_not(None)
    return (
        update(table)
        .where(
            table.c.id == func.any(bindparam("_ids")),
            is_now(table, Status.PENDING),
            table.c.next_attempt_at.is_(None),
            _waiting_with(table, model, needs, met),
            ~_waiting_with(table, model, needs, ~met),
        )
        .values(next_attempt_at=CLOCK, dispatched_at=null(), updated_at=CLOCK)
        .returning(table.c.id)
    )


@built_once
def hold_if_prerequisites_unmet(model: Model, schema: str | None) -> Write:
    """Take back the due time of rows that still wait for others."""
    table = table_of(model)
    needs = library(schema).prerequisites
    return (
        update(table)
        .where(
            table.c.id == func.any(bindparam("_ids")),
            is_now(table, Status.PENDING),
            _waiting_with(table, model, needs, needs.c.met_at.is_(None)),
        )
        .values(next_attempt_at=null(), updated_at=CLOCK)
        .returning(table.c.id)
    )


def revive_batch_if_ended(model: Model, conditions: Sequence[ColumnElement[bool]]) -> Write:
    """FAILED or CANCELLED rows that meet conditions -> PENDING, due at once, one batch."""
    table = table_of(model)
    batch = _batch(table, in_state(table, *REVIVABLE), *conditions, oldest_first=table.c.id)
    return (
        update(table)
        .where(table.c.id.in_(batch))
        .values(**revived(table))
        .returning(table.c.id, table.c.celery_task_id)
    )


def cancel_batch_if_active(model: Model, conditions: Sequence[ColumnElement[bool]]) -> Write:
    """PENDING or PROCESSING rows that meet conditions -> CANCELLED with a reason, one batch."""
    table = table_of(model)
    batch = _batch(table, in_state(table, *ACTIVE), *conditions, oldest_first=table.c.id)
    return update(table).where(table.c.id.in_(batch)).values(**cancelled(table)).returning(table.c.id)


@built_once
def broken_prerequisites(model: Model, needed: Model, schema: str | None) -> Select[Any]:
    """Find held rows whose prerequisite in one domain FAILED, was CANCELLED, or is gone."""
    needs = library(schema).prerequisites
    other = table_of(needed).alias("needed")  # which may be the waiting row's own table
    table = table_of(model)
    held = exists().where(
        table.c.id == needs.c.tracking_id, in_state(table, Status.PENDING), table.c.next_attempt_at.is_(None)
    )
    return (
        select(needs.c.tracking_id, needs.c.needs_id, other.c.status)
        .select_from(needs.outerjoin(other, other.c.id == needs.c.needs_id))
        .where(
            needs.c.domain == model.__tracking__.domain,
            needs.c.needs_domain == needed.__tracking__.domain,
            needs.c.if_unmet == "cancel",
            needs.c.met_at.is_(None),
            other.c.id.is_(None) | in_state(other, *(ENDED - {Status.COMPLETED})),
            held,
        )
        .order_by(needs.c.tracking_id)
        .limit(bindparam("_batch", type_=Integer()))
    )


@built_once
def cancel_if_held(model: Model) -> Write:
    """PENDING without a due time -> CANCELLED, because a prerequisite will never be met."""
    table = table_of(model)
    return (
        update(table)
        .where(
            table.c.id == bindparam("_row_id"),
            is_now(table, Status.PENDING),
            table.c.next_attempt_at.is_(None),
        )
        .values(
            status=literal_state(Status.CANCELLED),
            completed_at=CLOCK,
            error_message=bindparam("_error", type_=Text()),
            **let_go(),
        )
        .returning(table.c.id)
    )
