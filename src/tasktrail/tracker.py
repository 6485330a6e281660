"""The operations on tracking rows, over a sync ``Session`` or ``Connection``; none of them commits.

Async callers reach the same functions through ``AsyncSession.run_sync``. Each write is one guarded statement
of ``tasktrail.statements``. When it matches nothing, a read finds out why and a typed error says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, Executable, Row, Select, extract, select
from sqlalchemy.orm import Session

from tasktrail import statements, sweeps
from tasktrail.direct import Direct
from tasktrail.errors import (
    DuplicateTracking,
    FencedOut,
    InvalidField,
    NotDue,
    TrackingNotFound,
    WrongState,
    clean_text,
)
from tasktrail.fields import checked, domain_columns
from tasktrail.guards import CLOCK, table_of
from tasktrail.models import BaseTaskTracking
from tasktrail.retry import Decision, Retry
from tasktrail.states import ACTIVE, REVIVABLE, Status, sources

Database: TypeAlias = Session | Connection | Direct
OnDuplicate: TypeAlias = Literal["return", "restart", "error"]
Outcome: TypeAlias = Literal["error", "lost", "timeout"]
ModelT = TypeVar("ModelT", bound=BaseTaskTracking)


class Added(StrEnum):
    """What adding a row came to."""

    CREATED = "created"
    EXISTING = "existing"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class AddedRow:
    """The row that now tracks a unit of work.

    Attributes:
        id: its id.
        celery_task_id: id of the Celery message that will carry it.
        outcome: whether it is new, was there already, or was restarted.
        status: its state.
    """

    id: int
    celery_task_id: str | None
    outcome: Added
    status: Status


@dataclass(frozen=True, slots=True)
class Fence:
    """What an attempt must still find in its row for its writes to count.

    Attributes:
        tracking_id: the row.
        attempts: failed attempts at the time of the claim.
        celery_task_id: the Celery task that claimed it.
        started_at: the server's stamp of the claim.
    """

    tracking_id: int
    attempts: int
    celery_task_id: str | None
    started_at: datetime

    def parameters(self) -> dict[str, Any]:
        """Return the values the guard compares with."""
        return {
            "row_id": self.tracking_id,
            "fence_attempts": self.attempts,
            "fence_celery_task_id": self.celery_task_id,
            "fence_started_at": self.started_at,
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """A row taken by one worker for one attempt.

    Attributes:
        fence: proves ownership in every later write.
        max_attempts: how many attempts may fail before the row ends.
        created_at: when the row was made.
        inputs: the domain columns.
    """

    fence: Fence
    max_attempts: int
    created_at: datetime
    inputs: Mapping[str, Any]


def create(
    db: Database,
    model: type[BaseTaskTracking],
    fields: Mapping[str, Any],
    *,
    on_duplicate: OnDuplicate = "error",
) -> AddedRow:
    """Add a PENDING row, or find the one that tracks the same unit of work.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        fields: domain columns, and ``max_attempts``, ``next_attempt_at`` or ``celery_task_id`` if wanted.
        on_duplicate: when the natural key is taken, ``"return"`` the row there is; ``"restart"`` it if it is
            FAILED or CANCELLED, else return it; or raise an ``"error"``.

    Returns:
        The row and how it came about.

    Raises:
        InvalidField: a field is not acceptable; nothing was written.
        DuplicateTracking: the natural key is taken and ``on_duplicate`` is ``"error"``.
    """
    values = checked(model, fields)
    values.setdefault("celery_task_id", str(uuid4()))
    while True:
        added = db.execute(statements.insert_if_absent(model), values).first()
        if added is not None:
            return AddedRow(added.id, values["celery_task_id"], Added.CREATED, Status.PENDING)
        key = natural_key_of(model, values)
        there = _by_natural_key(db, model, key)
        if there is None:
            continue  # deleted between the two statements: try to add again
        status = Status(there.status)
        if on_duplicate == "error":
            raise DuplicateTracking(model.__tracking__.domain, there.id, key, status)
        if on_duplicate == "restart" and status in REVIVABLE:
            return _restart(db, model, there, grant=values.get("max_attempts") or 1)
        return AddedRow(there.id, there.celery_task_id, Added.EXISTING, status)


def create_many(
    db: Session | Connection, model: type[BaseTaskTracking], rows: Iterable[Mapping[str, Any]]
) -> list[AddedRow]:
    """Add many PENDING rows in one statement; rows whose natural key is taken are left out.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        rows: the fields of each row, all with the same names.

    Returns:
        The rows that are new.

    Raises:
        InvalidField: a field of any row is not acceptable; nothing was written.
    """
    values = [{"celery_task_id": str(uuid4()), **checked(model, row)} for row in rows]
    if not values:
        return []
    added = db.execute(statements.insert_many_if_absent(model), values)
    return [AddedRow(row.id, row.celery_task_id, Added.CREATED, Status.PENDING) for row in added]


def natural_key_of(model: type[BaseTaskTracking], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of ``fields`` that says which unit of work it is; empty without a natural key."""
    key = model.__tracking__.natural_key
    return {name: fields[name] for name in key.columns} if key else {}


def get(db: Database, model: type[ModelT], tracking_id: int) -> ModelT:
    """Return a detached snapshot of a row.

    Args:
        db: session or connection.
        model: the domain's model.
        tracking_id: the row.

    Raises:
        TrackingNotFound: there is no such row.
    """
    row = db.execute(_select(model).where(table_of(model).c.id == tracking_id)).first()
    if row is None:
        raise TrackingNotFound(model.__tracking__.domain, tracking_id)
    return _snapshot(model, row)


def find(db: Database, model: type[ModelT], **key: Any) -> ModelT | None:
    """Return a detached snapshot of the row with these values of its natural key, if there is one."""
    there = _by_natural_key(db, model, key)
    return None if there is None else get(db, model, there.id)


def by_status(
    db: Database, model: type[ModelT], states: Iterable[Status], *, limit: int | None = None
) -> list[ModelT]:
    """Return detached snapshots of the rows in some states, oldest first.

    Args:
        db: session or connection.
        model: the domain's model.
        states: the states wanted.
        limit: how many rows at most; ``None`` for all.
    """
    table = table_of(model)
    query = _select(model).where(table.c.status.in_(sorted(states))).order_by(table.c.id).limit(limit)
    return [_snapshot(model, row) for row in db.execute(query)]


def active(db: Database, model: type[ModelT], *, limit: int | None = None) -> list[ModelT]:
    """Return detached snapshots of the rows whose work is not finished, oldest first."""
    return by_status(db, model, ACTIVE, limit=limit)


def mark_dispatched(db: Database, model: type[BaseTaskTracking], ids: Sequence[int]) -> None:
    """Note that the messages of these rows went out; rows no longer PENDING are left alone."""
    db.execute(statements.mark_dispatched_if_pending(model), {"ids": list(ids)})


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
        {"row_id": tracking_id, "new_celery_task_id": celery_task_id, "new_worker": worker},
    ).first()
    if row is None:
        _refuse_claim(db, model, tracking_id)
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
        "fence_ids": [fence.tracking_id for fence in fences],
        "fence_attempts": [fence.attempts for fence in fences],
        "fence_celery_task_ids": [fence.celery_task_id for fence in fences],
        "fence_started_ats": [fence.started_at for fence in fences],
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
    for name, value in (("done", done), ("total", total)):
        if value is not None and value < 0:
            raise InvalidField(name, value, "must not be negative")
    statement = statements.progress_if_owned(model)
    _owned_write(db, model, fence, statement, "progress", done=done, total=total)


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
    parameters = {f"value_{name}": value for name, value in values.items()}
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
    kept = None if note is None else clean_text(note)
    _owned_write(db, model, fence, statements.complete_if_owned(model), "complete", note=kept)


def was_completed_by(db: Database, model: type[BaseTaskTracking], fence: Fence) -> bool:
    """Say whether a row is COMPLETED, and by the attempt with this fence."""
    row = get(db, model, fence.tracking_id)
    found = Fence(row.id, row.attempts, row.celery_task_id, row.started_at or fence.started_at)
    return row.status == Status.COMPLETED and row.started_at is not None and found == fence


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
    values = {"error": clean_text(error), "outcome": outcome}
    if isinstance(decision, Retry):
        statement = statements.retry_later_if_owned(model)
        row = _owned_write(db, model, fence, statement, "retry", delay=decision.seconds, **values)
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


def cancel(db: Database, model: type[BaseTaskTracking], tracking_id: int, reason: str) -> None:
    """Cancel a row that is PENDING or PROCESSING; the reason is kept in ``error_message``.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: it has ended already.
    """
    parameters = {"row_id": tracking_id, "error": clean_text(reason)}
    _write(db, model, tracking_id, statements.cancel_if_active(model), parameters, "cancel", ACTIVE)


def revive(db: Database, model: type[BaseTaskTracking], tracking_id: int, *, grant: int = 1) -> AddedRow:
    """Start a FAILED or CANCELLED row again, on an operator's word; its log and count are kept.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        tracking_id: the row.
        grant: how many further attempts may fail, at least.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: it has not ended, or it is COMPLETED.
    """
    if grant < 1:
        raise InvalidField("grant", grant, "must be at least 1")
    parameters = {"row_id": tracking_id, "grant": grant}
    row = _write(db, model, tracking_id, statements.revive_if_ended(model), parameters, "retry", REVIVABLE)
    return AddedRow(row.id, row.celery_task_id, Added.RESTARTED, Status.PENDING)


def move(
    db: Database,
    model: type[BaseTaskTracking],
    tracking_id: int,
    target: Status,
    error: str | None = None,
) -> None:
    """Take a row to a state its present one leads to, without a fence; for callers of the seed API.

    Moving to FAILED counts and logs an attempt, as every failure does.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: no transition leads from the row's state to ``target``.
    """
    parameters = {"row_id": tracking_id, "error": None if error is None else clean_text(error)}
    statement = statements.move_if_allowed(model, target)
    allowed = ACTIVE if target is Status.CANCELLED else sources(target)
    _write(db, model, tracking_id, statement, parameters, f"move to {target}", allowed)


def _restart(db: Database, model: type[BaseTaskTracking], there: Row[Any], *, grant: int) -> AddedRow:
    try:
        return revive(db, model, there.id, grant=grant)
    except (WrongState, TrackingNotFound):  # somebody else restarted or removed it just now
        row = get(db, model, there.id)
        return AddedRow(row.id, row.celery_task_id, Added.EXISTING, Status(row.status))


def _by_natural_key(db: Database, model: type[BaseTaskTracking], key: Mapping[str, Any]) -> Row[Any] | None:
    parameters = {f"key_{name}": value for name, value in key.items()}
    return db.execute(statements.select_by_natural_key(model), parameters).first()


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


def _write(
    db: Database,
    model: type[BaseTaskTracking],
    tracking_id: int,
    statement: Executable,
    parameters: Mapping[str, Any],
    operation: str,
    allowed: Iterable[Status],
) -> Row[Any]:
    row = db.execute(statement, parameters).first()
    if row is None:
        status = get(db, model, tracking_id).status
        raise WrongState(model.__tracking__.domain, tracking_id, operation, status, sorted(allowed))
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


def _select(model: type[BaseTaskTracking]) -> Select[Any]:
    return select(*table_of(model).columns)


def _snapshot(model: type[ModelT], row: Row[Any]) -> ModelT:
    return model(**row._asdict())
