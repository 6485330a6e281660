"""Every write to a tracking row: one guarded statement each, with the guard in its name.

A statement is built once per model and takes its values as parameters. Times are ``clock_timestamp()``, the
server's clock, since ``now()`` stands still in a long transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, Insert, insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from tasktrail.fields import domain_columns
from tasktrail.models import ATTEMPT_LOG_LIMIT, BaseTaskTracking
from tasktrail.states import ACTIVE, REVIVABLE, Status, sources

Model: TypeAlias = type[BaseTaskTracking]
Write: TypeAlias = ReturningUpdate[Any]
P = ParamSpec("P")
R = TypeVar("R")

CLOCK: Final = func.clock_timestamp(type_=DateTime(timezone=True))


def _built_once(build: Callable[P, R]) -> Callable[P, R]:
    """Cache a statement per model, with the signature kept for the type checker."""
    return cast("Callable[P, R]", cache(build))


def table_of(model: Model) -> Table:
    """Return the table a model is mapped to."""
    return cast("Table", model.__table__)  # type: ignore[attr-defined]  # set by SQLAlchemy


# Creating rows


@_built_once
def insert_if_absent(model: Model) -> ReturningInsert[Any]:
    """Add a PENDING row unless one with its natural key is there; returns its id and key."""
    return _insert_if_absent(model).returning(table_of(model).c.id)


@_built_once
def insert_many_if_absent(model: Model) -> ReturningInsert[Any]:
    """Add PENDING rows whose natural keys are not there yet; returns id and Celery id of those added."""
    table = table_of(model)
    return _insert_if_absent(model).returning(table.c.id, table.c.celery_task_id)


def _insert_if_absent(model: Model) -> Insert:
    statement = insert(table_of(model))
    key = model.__tracking__.natural_key
    return statement.on_conflict_do_nothing(index_elements=key.columns) if key else statement


@_built_once
def select_by_natural_key(model: Model) -> Select[Any]:
    """Find the row of a natural key."""
    table = table_of(model)
    key = model.__tracking__.natural_key
    columns = key.columns if key else ()
    guard = and_(*(table.c[name] == bindparam(f"key_{name}", type_=table.c[name].type) for name in columns))
    return select(table.c.id, table.c.status, table.c.celery_task_id).where(guard)


# Dispatching


@_built_once
def mark_dispatched_if_pending(model: Model) -> Write:
    """Note that the messages of these rows went out."""
    table = table_of(model)
    return (
        update(table)
        .where(table.c.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))), _in(table, Status.PENDING))
        .values(dispatched_at=CLOCK)
        .returning(table.c.id)
    )


# One attempt


@_built_once
def claim_if_pending_and_due(model: Model) -> Write:
    """PENDING and due -> PROCESSING, for one worker; returns the fence and the inputs."""
    table = table_of(model)
    return (
        update(table)
        .where(_this_row(table), _in(table, *sources(Status.PROCESSING)), table.c.next_attempt_at <= CLOCK)
        .values(
            status=_state(Status.PROCESSING),
            started_at=CLOCK,
            heartbeat_at=CLOCK,
            completed_at=null(),
            updated_at=CLOCK,
            celery_task_id=bindparam("new_celery_task_id", type_=String()),
            worker=bindparam("new_worker", type_=String()),
        )
        .returning(
            table.c.started_at,
            table.c.attempts,
            table.c.max_attempts,
            table.c.created_at,
            *domain_columns(model).values(),
        )
    )


@_built_once
def heartbeat_if_owned(model: Model) -> Write:
    """Renew the lease of a row this attempt owns."""
    table = table_of(model)
    return update(table).where(*_owned(table)).values(heartbeat_at=CLOCK).returning(table.c.id)


@_built_once
def progress_if_owned(model: Model) -> Write:
    """Write the domain's progress columns of a row this attempt owns; renews the lease."""
    table = table_of(model)
    progress = model.__tracking__.progress
    values: dict[str, Any] = {"heartbeat_at": CLOCK, "updated_at": CLOCK}
    if progress is not None:
        for name, parameter in ((progress.done, "done"), (progress.total, "total")):
            column = table.c[name]
            values[name] = func.coalesce(bindparam(parameter, type_=column.type), column)
    return update(table).where(*_owned(table)).values(**values).returning(table.c.id)


def record_if_owned(model: Model, names: Collection[str]) -> Write:
    """Write domain columns of a row this attempt owns; renews the lease."""
    table = table_of(model)
    values: dict[str, Any] = {
        name: bindparam(f"value_{name}", type_=table.c[name].type) for name in sorted(names)
    }
    return (
        update(table)
        .where(*_owned(table))
        .values(heartbeat_at=CLOCK, updated_at=CLOCK, **values)
        .returning(table.c.id)
    )


@_built_once
def complete_if_owned(model: Model) -> Write:
    """PROCESSING -> COMPLETED with a note or none, by the attempt that owns the row."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(
            status=_state(Status.COMPLETED),
            completed_at=CLOCK,
            error_message=bindparam("note", type_=Text()),
            **_let_go(),
        )
        .returning(table.c.id)
    )


@_built_once
def fail_if_owned(model: Model) -> Write:
    """PROCESSING -> FAILED, counting and logging the attempt, by the attempt that owns the row."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(status=_state(Status.FAILED), completed_at=CLOCK, **_failure(table), **_let_go())
        .returning(table.c.id)
    )


@_built_once
def retry_later_if_owned(model: Model) -> Write:
    """PROCESSING -> PENDING with a due time, counting and logging the attempt, by its owner."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(status=_state(Status.PENDING), **_failure(table), **_due_in(), **_let_go())
        .returning(table.c.id, table.c.next_attempt_at)
    )


@_built_once
def release_if_owned(model: Model) -> Write:
    """PROCESSING -> PENDING, due at once, costing no attempt, by the attempt that owns the row."""
    table = table_of(model)
    return (
        update(table)
        .where(*_owned(table))
        .values(status=_state(Status.PENDING), next_attempt_at=CLOCK, dispatched_at=null(), **_let_go())
        .returning(table.c.id)
    )


# From outside an attempt


@_built_once
def cancel_if_active(model: Model) -> Write:
    """PENDING or PROCESSING -> CANCELLED with a reason; a running attempt is logged, not counted."""
    table = table_of(model)
    reason = bindparam("error", type_=Text())
    logged = case(
        (_in(table, Status.PROCESSING), _log_with(table, literal("cancelled", String()))),
        else_=table.c.attempt_log,
    )
    return (
        update(table)
        .where(_this_row(table), _in(table, *ACTIVE))
        .values(
            status=_state(Status.CANCELLED),
            completed_at=CLOCK,
            error_message=reason,
            attempt_log=logged,
            **_let_go(),
        )
        .returning(table.c.id)
    )


@_built_once
def revive_if_ended(model: Model) -> Write:
    """FAILED or CANCELLED -> PENDING, due at once, with room for another round of attempts."""
    table = table_of(model)
    granted = bindparam("grant", type_=Integer())
    return (
        update(table)
        .where(_this_row(table), _in(table, *REVIVABLE))
        .values(
            status=_state(Status.PENDING),
            max_attempts=func.greatest(table.c.max_attempts, table.c.attempts + granted),
            next_attempt_at=CLOCK,
            dispatched_at=null(),
            completed_at=null(),
            **_let_go(),
        )
        .returning(table.c.id, table.c.celery_task_id)
    )


@_built_once
def move_if_allowed(model: Model, target: Status) -> Write:
    """Any state that leads to the target -> the target, without a fence; for callers of the seed API."""
    table = table_of(model)
    error = bindparam("error", type_=Text())
    values: dict[Status, dict[str, Any]] = {
        Status.PENDING: {"next_attempt_at": CLOCK, "completed_at": null(), **_let_go()},
        Status.PROCESSING: {"started_at": CLOCK, "completed_at": null(), "updated_at": CLOCK},
        Status.COMPLETED: {"completed_at": CLOCK, "error_message": error, **_let_go()},
        Status.FAILED: {"completed_at": CLOCK, **_failure(table, literal("error", String())), **_let_go()},
    }
    if target is Status.CANCELLED:
        return cancel_if_active(model)
    return (
        update(table)
        .where(_this_row(table), _in(table, *sources(target)))
        .values(status=_state(target), **values[target])
        .returning(table.c.id)
    )


# What the guards and the written values are made of


def _this_row(table: Table) -> ColumnElement[bool]:
    return table.c.id == bindparam("row_id", type_=BigInteger())


def _in(table: Table, *states: Status) -> ColumnElement[bool]:
    """Build the state guard, with the states in the statement's text so that partial indexes match."""
    names = [_state(state) for state in sorted(states)]
    return table.c.status == names[0] if len(names) == 1 else table.c.status.in_(names)


def _state(state: Status) -> ColumnElement[str]:
    return literal_column(f"'{state}'", String())


def _owned(table: Table) -> tuple[ColumnElement[bool], ...]:
    """Build the fence: same row, still PROCESSING, same attempt, same Celery task.

    ``started_at`` is the stamp of the claim. It tells apart two claims with equal ``attempts`` and the same
    Celery task: after a graceful shutdown, the redelivered message claims the row again.
    """
    return (
        _this_row(table),
        _in(table, Status.PROCESSING),
        table.c.attempts == bindparam("fence_attempts", type_=Integer()),
        table.c.celery_task_id.is_not_distinct_from(bindparam("fence_celery_task_id", type_=String())),
        table.c.started_at == bindparam("fence_started_at", type_=DateTime(timezone=True)),
    )


def _let_go() -> dict[str, Any]:
    return {"heartbeat_at": null(), "updated_at": CLOCK}


def _due_in() -> dict[str, Any]:
    delay = func.make_interval(0, 0, 0, 0, 0, 0, bindparam("delay", type_=Double()))
    return {"next_attempt_at": CLOCK + delay, "dispatched_at": null()}


def _failure(table: Table, outcome: ColumnElement[str] | None = None) -> dict[str, Any]:
    if outcome is None:
        outcome = bindparam("outcome", type_=String())
    return {
        "attempts": table.c.attempts + 1,
        "error_message": bindparam("error", type_=Text()),
        "attempt_log": _log_with(table, outcome),
    }


def _log_with(table: Table, outcome: ColumnElement[str]) -> ColumnElement[Any]:
    entry = func.jsonb_build_object(
        literal("number", String()),
        table.c.attempts + 1,
        literal("start", String()),
        table.c.started_at,
        literal("end", String()),
        CLOCK,
        literal("outcome", String()),
        outcome,
        literal("error", String()),
        bindparam("error", type_=Text()),
        literal("worker", String()),
        table.c.worker,
        type_=JSONB,
    )
    newest = func.jsonb_path_query_array(
        table.c.attempt_log,
        literal_column(f"'$[last - {ATTEMPT_LOG_LIMIT - 2} to last]'::jsonpath"),
        type_=JSONB,
    )
    return newest.concat(func.jsonb_build_array(entry, type_=JSONB))
