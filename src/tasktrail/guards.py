"""What the guards of the statements and the values they write are made of.

The names of all parameters begin with an underscore, and those of columns do not: SQLAlchemy takes what an
UPDATE is given under the name of a column as a value for that column.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    FromClause,
    Integer,
    String,
    Table,
    Text,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    null,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.dml import ReturningUpdate

from tasktrail.models import ATTEMPT_LOG_LIMIT, BaseTaskTracking
from tasktrail.states import Status

Model: TypeAlias = type[BaseTaskTracking]
Write: TypeAlias = ReturningUpdate[Any]

CLOCK: Final = func.clock_timestamp(type_=DateTime(timezone=True))


def table_of(model: Model) -> Table:
    """Return the table a model is mapped to."""
    return cast("Table", model.__table__)  # type: ignore[attr-defined]  # set by SQLAlchemy


def this_row(table: Table) -> ColumnElement[bool]:
    """Match one row by its id."""
    return table.c.id == bindparam("_row_id", type_=BigInteger())


def in_state(table: FromClause, *states: Status) -> ColumnElement[bool]:
    """Build the state guard, with the states in the statement's text so that partial indexes match."""
    names = [literal_state(state) for state in sorted(states)]
    return table.c.status == names[0] if len(names) == 1 else table.c.status.in_(names)


def is_now(table: FromClause, *states: Status) -> ColumnElement[bool]:
    """Build the state guard of rows that are found by their ids.

    The column stands in an expression, so that the planner cannot choose an index on the state. It would,
    when the statistics say that few rows are in it, and then read all of them on a backlog: claims took 30
    times as long (``bench/transitions.py``).
    """
    status = table.c.status.concat(literal_column("''", String()))
    names = [literal_state(state) for state in sorted(states)]
    return status == names[0] if len(names) == 1 else status.in_(names)


def literal_state(state: Status) -> ColumnElement[str]:
    """Write a state into the text of a statement."""
    return literal_column(f"'{state}'", String())


def owned(table: Table) -> tuple[ColumnElement[bool], ...]:
    """Build the fence: same row, still PROCESSING, same attempt, same Celery task.

    ``started_at`` is the stamp of the claim. It tells apart two claims with equal ``attempts`` and the same
    Celery task: after a graceful shutdown, the redelivered message claims the row again.
    """
    return (
        this_row(table),
        is_now(table, Status.PROCESSING),
        table.c.attempts == bindparam("_fence_attempts", type_=Integer()),
        table.c.celery_task_id.is_not_distinct_from(bindparam("_fence_celery_task_id", type_=String())),
        table.c.started_at == bindparam("_fence_started_at", type_=DateTime(timezone=True)),
    )


def let_go() -> dict[str, Any]:
    """Write what goes when no worker has the row any more."""
    return {"heartbeat_at": null(), "updated_at": CLOCK}


def due_in() -> dict[str, Any]:
    """Write a due time so many seconds from now."""
    delay = func.make_interval(0, 0, 0, 0, 0, 0, bindparam("_delay", type_=Double()))
    return {"next_attempt_at": CLOCK + delay, "dispatched_at": null()}


def failure(table: Table, outcome: ColumnElement[str] | None = None) -> dict[str, Any]:
    """Write what every failed attempt writes: it is counted, named and logged."""
    if outcome is None:
        outcome = bindparam("_outcome", type_=String())
    return {
        "attempts": table.c.attempts + 1,
        "error_message": bindparam("_error", type_=Text()),
        "attempt_log": log_with(table, outcome),
    }


def log_with(table: Table, outcome: ColumnElement[str]) -> ColumnElement[Any]:
    """Append an entry to the attempt log and keep the newest ones."""
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
        func.coalesce(bindparam("_error", type_=Text()), "no reason given"),
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


def revived(table: Table, due: ColumnElement[Any] = CLOCK) -> dict[str, Any]:
    """Write what starts an ended row again: log and count stay, with room for another round of attempts.

    It gets another Celery id: workers go on discarding messages under one that was revoked.

    Args:
        table: the row's table.
        due: its due time.
    """
    granted = bindparam("_grant", type_=Integer())
    return {
        "status": literal_state(Status.PENDING),
        "celery_task_id": func.gen_random_uuid().cast(String()),
        "max_attempts": func.greatest(table.c.max_attempts, table.c.attempts + granted),
        "next_attempt_at": due,
        "dispatched_at": null(),
        "completed_at": null(),
        **let_go(),
    }


def cancelled(table: Table) -> dict[str, Any]:
    """Write a cancellation with its reason; a running attempt is logged, not counted."""
    logged = case(
        (in_state(table, Status.PROCESSING), log_with(table, literal("cancelled", String()))),
        else_=table.c.attempt_log,
    )
    return {
        "status": literal_state(Status.CANCELLED),
        "completed_at": CLOCK,
        "error_message": bindparam("_error", type_=Text()),
        "attempt_log": logged,
        **let_go(),
    }
