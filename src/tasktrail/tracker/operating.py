"""Writes from outside an attempt, under the state alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, Row

from tasktrail import statements, sweeps
from tasktrail.errors import (
    InvalidField,
    WrongState,
    clean_text,
)
from tasktrail.guards import table_of
from tasktrail.models import BaseTaskTracking
from tasktrail.states import ACTIVE, REVIVABLE, Status, sources
from tasktrail.tracker.reading import get
from tasktrail.tracker.values import IMMEDIATELY, Added, AddedRow, Database


def cancel(db: Database, model: type[BaseTaskTracking], tracking_id: int, reason: str) -> None:
    """Cancel a row that is PENDING or PROCESSING; the reason is kept in ``error_message``.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: it has ended already.
    """
    parameters = {"_row_id": tracking_id, "_error": clean_text(reason)}
    _write(db, model, tracking_id, statements.cancel_if_active(model), parameters, "cancel", ACTIVE)


def revive(
    db: Database,
    model: type[BaseTaskTracking],
    tracking_id: int,
    *,
    grant: int = 1,
    due: datetime | None = IMMEDIATELY,
) -> AddedRow:
    """Start a FAILED or CANCELLED row again, on an operator's word; its log and count are kept.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        tracking_id: the row.
        grant: how many further attempts may fail, at least.
        due: when it is due; ``None`` holds it.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: it has not ended, or it is COMPLETED.
    """
    if grant < 1:
        raise InvalidField("grant", grant, "must be at least 1")
    parameters = {"_row_id": tracking_id, "_grant": grant, "_due": due}
    row = _write(db, model, tracking_id, statements.revive_if_ended(model), parameters, "retry", REVIVABLE)
    return AddedRow(row.id, row.celery_task_id, Added.RESTARTED, Status.PENDING)


def move(
    db: Database,
    model: type[BaseTaskTracking],
    tracking_id: int,
    target: Status,
    error: str | None = None,
    *,
    schema: str | None = None,
) -> None:
    """Take a row to a state its present one leads to, without a fence; for callers of the seed API.

    Moving to FAILED counts and logs an attempt, as every failure does. A row that moves to PENDING is due at
    once, or once its prerequisites are met; one that had ended is started again as by ``revive``.

    Args:
        db: session or connection; the caller commits.
        model: the domain's model.
        tracking_id: the row.
        target: the state to reach.
        error: what went wrong, or why it was cancelled.
        schema: where the library's own tables are; without it, where the model's table is.

    Raises:
        TrackingNotFound: there is no such row.
        WrongState: no transition leads from the row's state to ``target``.
    """
    parameters = {"_row_id": tracking_id, "_error": None if error is None else clean_text(error)}
    if target is Status.PENDING:
        parameters["_grant"] = 1
    statement = statements.move_if_allowed(model, target)
    allowed = ACTIVE if target is Status.CANCELLED else sources(target)
    _write(db, model, tracking_id, statement, parameters, f"move to {target}", allowed)
    if target is Status.PENDING:
        hold = sweeps.hold_if_prerequisites_unmet(model, schema or table_of(model).schema)
        db.execute(hold, {"_ids": [tracking_id]})


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
