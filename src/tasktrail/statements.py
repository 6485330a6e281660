"""Every write to a tracking row: one guarded statement each, with the guard in its name.

A statement is built once per model and takes its values as parameters. Times are ``clock_timestamp()``, the
server's clock, since ``now()`` stands still in a long transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    Select,
    String,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.dml import ReturningInsert

from tasktrail.fields import domain_columns
from tasktrail.guards import (
    CLOCK,
    Model,
    Write,
    cancelled,
    due_in,
    failure,
    in_state,
    is_now,
    let_go,
    literal_state,
    revived,
    table_of,
    this_row,
)
from tasktrail.guards import owned as _owned
from tasktrail.keys import id_of_key, keys_of
from tasktrail.models import built_once
from tasktrail.states import ACTIVE, REVIVABLE, Status, sources

# Creating rows


@built_once
def insert_if_absent(model: Model) -> ReturningInsert[Any]:
    """Add a PENDING row unless one with its natural key is there; returns its id and key."""
    return _insert_if_absent(model).returning(table_of(model).c.id)


@built_once
def insert_many_if_absent(model: Model) -> ReturningInsert[Any]:
    """Add PENDING rows whose natural keys are not there yet; returns id and Celery id of those added."""
    table = table_of(model)
    return _insert_if_absent(model).returning(table.c.id, table.c.celery_task_id)


def _insert_if_absent(model: Model) -> Insert:
    statement = insert(table_of(model))
    key = model.__tracking__.natural_key
    return statement.on_conflict_do_nothing(index_elements=key.columns) if key else statement


@built_once
def select_by_natural_key(model: Model) -> Select[Any]:
    """Find the row of a natural key."""
    table = table_of(model)
    key = model.__tracking__.natural_key
    columns = key.columns if key else ()
    guard = and_(*(table.c[name] == bindparam(f"_key_{name}", type_=table.c[name].type) for name in columns))
    keys = keys_of(model)
    if keys is not None:
        guard = table.c.id == id_of_key(keys)
    return select(table.c.id, table.c.status, table.c.celery_task_id).where(guard)


# Dispatching


@built_once
def mark_dispatched_if_pending(model: Model) -> Write:
    """Note that the messages of these rows went out.

    A row without a due time was claimed meanwhile and given back: its message is used up.
    """
    table = table_of(model)
    return (
        update(table)
        .where(
            table.c.id == func.any(bindparam("_ids", type_=ARRAY(BigInteger))),
            is_now(table, Status.PENDING),
            table.c.next_attempt_at.is_not(None),
        )
        .values(dispatched_at=CLOCK)
        .returning(table.c.id)
    )


# One attempt


@built_once
def claim_if_pending_and_due(model: Model) -> Write:
    """PENDING and due -> PROCESSING, for one worker; returns the fence and the inputs."""
    table = table_of(model)
    return (
        update(table)
        .where(
            this_row(table),
            is_now(table, *sources(Status.PROCESSING)),
            table.c.next_attempt_at <= CLOCK,
        )
        .values(
            status=literal_state(Status.PROCESSING),
            started_at=CLOCK,
            heartbeat_at=CLOCK,
            completed_at=null(),
            updated_at=CLOCK,
            celery_task_id=bindparam("_new_celery_task_id", type_=String()),
            worker=bindparam("_new_worker", type_=String()),
        )
        .returning(
            table.c.started_at,
            table.c.attempts,
            table.c.max_attempts,
            table.c.created_at,
            *domain_columns(model).values(),
        )
    )


@built_once
def heartbeat_if_owned(model: Model) -> Write:
    """Renew the lease of a row this attempt owns."""
    table = table_of(model)
    return update(table).where(*_owned(table)).values(heartbeat_at=CLOCK).returning(table.c.id)


@built_once
def progress_if_owned(model: Model) -> Write:
    """Write the domain's progress columns of a row this attempt owns; renews the lease."""
    table = table_of(model)
    progress = model.__tracking__.progress
    values: dict[str, Any] = {"heartbeat_at": CLOCK, "updated_at": CLOCK}
    if progress is not None:
        for name, parameter in ((progress.done, "_done"), (progress.total, "_total")):
            column = table.c[name]
            values[name] = func.coalesce(bindparam(parameter, type_=column.type), column)
    return update(table).where(*_owned(table)).values(**values).returning(table.c.id)


def record_if_owned(model: Model, names: Collection[str]) -> Write:
    """Write domain columns of a row this attempt owns; renews the lease."""
    table = table_of(model)
    values: dict[str, Any] = {
        name: bindparam(f"_value_{name}", type_=table.c[name].type) for name in sorted(names)
    }
    return (
        update(table)
        .where(*_owned(table))
        .values(heartbeat_at=CLOCK, updated_at=CLOCK, **values)
        .returning(table.c.id)
    )


@built_once
def complete_if_owned(model: Model) -> Write:
    """PROCESSING -> COMPLETED with a note or none, by the attempt that owns the row."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(
            status=literal_state(Status.COMPLETED),
            completed_at=CLOCK,
            error_message=bindparam("_note", type_=Text()),
            **let_go(),
        )
        .returning(table.c.id)
    )


@built_once
def fail_if_owned(model: Model) -> Write:
    """PROCESSING -> FAILED, counting and logging the attempt, by the attempt that owns the row."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(status=literal_state(Status.FAILED), completed_at=CLOCK, **failure(table), **let_go())
        .returning(table.c.id)
    )


@built_once
def retry_later_if_owned(model: Model) -> Write:
    """PROCESSING -> PENDING with a due time, counting and logging the attempt, by its owner."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(status=literal_state(Status.PENDING), **failure(table), **due_in(), **let_go())
        .returning(table.c.next_attempt_at)
    )


@built_once
def release_if_owned(model: Model) -> Write:
    """PROCESSING -> PENDING, due at once, costing no attempt, by the attempt that owns the row."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(status=literal_state(Status.PENDING), next_attempt_at=CLOCK, dispatched_at=null(), **let_go())
        .returning(table.c.id)
    )


# From outside an attempt


@built_once
def cancel_if_active(model: Model) -> Write:
    """PENDING or PROCESSING -> CANCELLED with a reason; a running attempt is logged, not counted."""
    table = table_of(model)
    return (
        update(table)
        .where(this_row(table), is_now(table, *ACTIVE))
        .values(**cancelled(table))
        .returning(table.c.id)
    )


@built_once
def revive_if_ended(model: Model) -> Write:
    """FAILED or CANCELLED -> PENDING with a due time or none, with room for another round of attempts."""
    table = table_of(model)
    due = bindparam("_due", type_=DateTime(timezone=True))
    return (
        update(table)
        .where(this_row(table), is_now(table, *REVIVABLE))
        .values(**revived(table, case((due <= CLOCK, CLOCK), else_=due)))
        .returning(table.c.id, table.c.celery_task_id)
    )


@built_once
def move_if_allowed(model: Model, target: Status) -> Write:
    """Any state that leads to the target -> the target, without a fence; for callers of the seed API."""
    table = table_of(model)
    if target is Status.CANCELLED:
        return cancel_if_active(model)
    is_ended = in_state(table, *REVIVABLE)
    again = revived(table)
    error = bindparam("_error", type_=Text())
    values: dict[Status, dict[str, Any]] = {
        Status.PENDING: {
            **again,
            **{
                name: case((is_ended, again[name]), else_=table.c[name])
                for name in ("celery_task_id", "max_attempts")
            },
        },
        Status.PROCESSING: {"started_at": CLOCK, "completed_at": null(), "updated_at": CLOCK},
        Status.COMPLETED: {"completed_at": CLOCK, "error_message": error, **let_go()},
        Status.FAILED: {"completed_at": CLOCK, **failure(table, literal("error", String())), **let_go()},
    }
    return (
        update(table)
        .where(this_row(table), is_now(table, *sources(target)))
        .values(**{"status": literal_state(target), **values[target]})
        .returning(table.c.id)
    )
