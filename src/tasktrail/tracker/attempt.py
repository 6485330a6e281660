"""One attempt: from the claim to the end, each write under the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from sqlalchemy import Executable, Row, extract, func, select
from sqlalchemy.sql.dml import UpdateBase

from tasktrail import statements, sweeps
from tasktrail.errors import (
    FencedOut,
    InvalidField,
    NotDue,
    TrackingNotFound,
    WrongState,
    clean_text,
)
from tasktrail.fields import checked, domain_columns
from tasktrail.guards import CLOCK, in_state, table_of
from tasktrail.models import BaseTaskTracking
from tasktrail.retry import Decision, Retry
from tasktrail.states import Status, sources
from tasktrail.tracker.reading import get
from tasktrail.tracker.values import Claim, Database, Fence, Outcome


def claim(
    db: Database,
    model: type[BaseTaskTracking],
    tracking_id: int,
    *,
    celery_task_id: str | None,
    worker: str | None,
) -> Claim:
    """Take a PENDING row that is due for one worker.

    Args:
        db: session or connection; the claim holds once the caller commits.
        model: the domain's model.
        tracking_id: the row.
        celery_task_id: the Celery task that runs it.
        worker: who runs it.

    Returns:
        The claim, whose fence every later write of the attempt needs.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: it is not PENDING; somebody else has it, or it has ended.
        NotDue: it waits for its due time or has none yet.
    """
    row = db.execute(
        statements.claim_if_pending_and_due(model),
        {"_row_id": tracking_id, "_new_celery_task_id": celery_task_id, "_new_worker": worker},
    ).first()
    if row is None:
        _refuse_claim(db, model, tracking_id)
    return _claim_of(row, model, tracking_id, celery_task_id)


def claimed_within(
    db: Database,
    model: type[BaseTaskTracking],
    tracking_id: int,
    seconds: float,
    *,
    celery_task_id: str | None,
    worker: str | None,
) -> Claim | None:
    """Return the claim that a worker has made lately, for one that did not hear what became of it.

    Args:
        db: session or connection.
        model: the domain's model.
        tracking_id: the row.
        seconds: how long ago it was made, at most.
        celery_task_id: the Celery task it was made for.
        worker: who made it.

    Returns:
        The claim; ``None`` if there is none, or its attempt has ended.
    """
    table = table_of(model)
    row = db.execute(
        select(
            table.c.started_at,
            table.c.attempts,
            table.c.max_attempts,
            table.c.created_at,
            *domain_columns(model).values(),
        ).where(
            table.c.id == tracking_id,
            in_state(table, Status.PROCESSING),
            table.c.celery_task_id.is_not_distinct_from(celery_task_id),
            table.c.worker.is_not_distinct_from(worker),
            table.c.started_at >= CLOCK - func.make_interval(0, 0, 0, 0, 0, 0, seconds),
        )
    ).first()
    return None if row is None else _claim_of(row, model, tracking_id, celery_task_id)


def _claim_of(
    row: Row[Any], model: type[BaseTaskTracking], tracking_id: int, celery_task_id: str | None
) -> Claim:
    return Claim(
        fence=Fence(tracking_id, row.attempts, celery_task_id, row.started_at),
        max_attempts=row.max_attempts,
        created_at=row.created_at,
        inputs={name: getattr(row, name) for name in domain_columns(model)},
    )


def fence(
    db: Database,
    model: type[BaseTaskTracking],
    tracking_id: int,
    operation: str,
    *,
    worker: str | None = None,
    celery_task_id: str | None = None,
) -> tuple[Fence, int]:
    """Read the fence of a row that is PROCESSING, for callers that did not claim it themselves.

    Args:
        db: session or connection.
        model: the domain's model.
        tracking_id: the row.
        operation: what the fence is wanted for, for the error.
        worker: if given, the row must be this worker's.
        celery_task_id: if given, the row must be this Celery task's.

    Returns:
        The fence and the row's ``max_attempts``.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: it is not PROCESSING.
        FencedOut: it is another worker's or another task's.
    """
    row = get(db, model, tracking_id)
    domain = model.__tracking__.domain
    if row.status != Status.PROCESSING or row.started_at is None:
        raise WrongState(domain, tracking_id, operation, row.status, [Status.PROCESSING])
    if worker not in {None, row.worker} or celery_task_id not in {None, row.celery_task_id}:
        raise FencedOut(domain, tracking_id, operation, row.status)
    return Fence(row.id, row.attempts, row.celery_task_id, row.started_at), row.max_attempts


def heartbeat(db: Database, model: type[BaseTaskTracking], fence: Fence) -> None:
    """Renew the lease of a claimed row.

    Raises:
        FencedOut: the attempt no longer owns the row.
        TrackingNotFound: the row is gone.
    """
    _owned_write(db, model, fence, statements.heartbeat_if_owned(model), "heartbeat")


def renew(db: Database, model: type[BaseTaskTracking], fences: Sequence[Fence]) -> set[int]:
    """Renew the leases of several claimed rows in one statement.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        fences: what proves ownership of each row.

    Returns:
        The ids of the rows that are still owned; the others were cancelled or taken over.
    """
    parameters = {
        "_fence_ids": [fence.tracking_id for fence in fences],
        "_fence_attempts": [fence.attempts for fence in fences],
        "_fence_celery_task_ids": [fence.celery_task_id for fence in fences],
        "_fence_started_ats": [fence.started_at for fence in fences],
    }
    return set(db.execute(sweeps.renew_leases_if_owned(model), parameters).scalars())


def progress(
    db: Database,
    model: type[BaseTaskTracking],
    fence: Fence,
    *,
    done: int | None = None,
    total: int | None = None,
) -> None:
    """Write how far a claimed row has come; ``None`` leaves a number as it is.

    Raises:
        InvalidField: a number is negative, or the domain declares no progress columns.
        FencedOut: the attempt no longer owns the row.
        TrackingNotFound: the row is gone.
    """
    if model.__tracking__.progress is None:
        raise InvalidField("progress", done, f"{model.__tracking__.domain} declares no progress columns")
    columns = model.__tracking__.progress
    for name, column, value in (("done", columns.done, done), ("total", columns.total, total)):
        if value is None:
            continue
        try:
            checked(model, {column: value}, partial=True)
        except InvalidField as error:
            raise InvalidField(name, value, error.reason) from None
        if value < 0:
            raise InvalidField(name, value, "must not be negative")
    statement = statements.progress_if_owned(model)
    _owned_write(db, model, fence, statement, "progress", _done=done, _total=total)


def record(db: Database, model: type[BaseTaskTracking], fence: Fence, values: Mapping[str, Any]) -> None:
    """Write domain columns of a claimed row, e.g. what the job found.

    Raises:
        InvalidField: a name is no domain column or a value does not fit it.
        FencedOut: the attempt no longer owns the row.
        TrackingNotFound: the row is gone.
    """
    checked(model, values, partial=True)
    if not values:
        return
    statement = statements.record_if_owned(model, frozenset(values))
    parameters = {f"_value_{name}": value for name, value in values.items()}
    _owned_write(db, model, fence, statement, "record", **parameters)


def complete(db: Database, model: type[BaseTaskTracking], fence: Fence, *, note: str | None = None) -> None:
    """End a claimed row as COMPLETED.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        fence: proves ownership.
        note: what was not quite as asked, kept in ``error_message``; ``None`` clears it.

    Raises:
        FencedOut: the attempt no longer owns the row.
        TrackingNotFound: the row is gone.
    """
    statement, parameters = completion(model, fence, note=note)
    _owned_write(db, model, fence, statement, "complete", **parameters)


def completion(
    model: type[BaseTaskTracking], fence: Fence, *, note: str | None = None
) -> tuple[UpdateBase, dict[str, Any]]:
    """Return the statement of ``complete`` and its parameters; it returns a row if the attempt owned it.

    Args:
        model: the domain's model.
        fence: proves ownership.
        note: as for ``complete``.
    """
    kept = None if note is None else clean_text(note)
    return statements.complete_if_owned(model), {**fence.parameters(), "_note": kept}


def fail(
    db: Database,
    model: type[BaseTaskTracking],
    fence: Fence,
    decision: Decision,
    *,
    error: str,
    outcome: Outcome = "error",
) -> datetime | None:
    """Record that a claimed row's attempt failed: PENDING again with a due time, or FAILED.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        fence: proves ownership.
        decision: what the retry policy said.
        error: "Class: message".
        outcome: what kind of failure it was.

    Returns:
        When the next attempt is due; ``None`` when the row is FAILED.

    Raises:
        FencedOut: the attempt no longer owns the row.
        TrackingNotFound: the row is gone.
    """
    values = {"_error": clean_text(error), "_outcome": outcome}
    if isinstance(decision, Retry):
        statement = statements.retry_later_if_owned(model)
        row = _owned_write(db, model, fence, statement, "retry", _delay=decision.seconds, **values)
        due: datetime = row.next_attempt_at
        return due
    _owned_write(db, model, fence, statements.fail_if_owned(model), "fail", **values)
    return None


def release(db: Database, model: type[BaseTaskTracking], fence: Fence) -> None:
    """Give a claimed row back, due at once, without counting an attempt.

    Raises:
        FencedOut: the attempt no longer owns the row.
        TrackingNotFound: the row is gone.
    """
    _owned_write(db, model, fence, statements.release_if_owned(model), "release")


def _owned_write(
    db: Database,
    model: type[BaseTaskTracking],
    fence: Fence,
    statement: Executable,
    operation: str,
    **values: Any,
) -> Row[Any]:
    row = db.execute(statement, {**fence.parameters(), **values}).first()
    if row is None:
        domain = model.__tracking__.domain
        raise FencedOut(domain, fence.tracking_id, operation, get(db, model, fence.tracking_id).status)
    return row


def _refuse_claim(db: Database, model: type[BaseTaskTracking], tracking_id: int) -> NoReturn:
    table = table_of(model)
    domain = model.__tracking__.domain
    row = db.execute(
        select(
            table.c.status,
            table.c.next_attempt_at,
            extract("epoch", table.c.next_attempt_at - CLOCK).label("seconds"),
        ).where(table.c.id == tracking_id)
    ).first()
    if row is None:
        raise TrackingNotFound(domain, tracking_id)
    if row.status != Status.PENDING:
        raise WrongState(domain, tracking_id, "claim", row.status, sorted(sources(Status.PROCESSING)))
    seconds = None if row.seconds is None else max(0.0, float(row.seconds))
    raise NotDue(domain, tracking_id, row.next_attempt_at, seconds)
