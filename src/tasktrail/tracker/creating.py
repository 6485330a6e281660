"""Adding rows, and noting that their messages went out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args
from uuid import uuid4

from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from tasktrail import keys, statements
from tasktrail.errors import (
    DuplicateTracking,
    InvalidField,
    TrackingNotFound,
    WrongState,
)
from tasktrail.fields import checked
from tasktrail.models import BaseTaskTracking
from tasktrail.states import REVIVABLE, Status
from tasktrail.tracker.operating import revive
from tasktrail.tracker.reading import by_natural_key, get, natural_key_of
from tasktrail.tracker.values import IMMEDIATELY, Added, AddedRow, Database, OnDuplicate


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
            FAILED or CANCELLED, else return it; or raise an ``"error"``. What is restarted keeps its columns;
            of the fields, only ``next_attempt_at`` and ``max_attempts`` count, the latter as the number of
            further attempts.

    Returns:
        The row and how it came about.

    Raises:
        InvalidField: a field is not acceptable; nothing was written.
        DuplicateTracking: the natural key is taken and ``on_duplicate`` is ``"error"``.
    """
    if on_duplicate not in get_args(OnDuplicate):
        raise InvalidField("on_duplicate", on_duplicate, f"must be one of {', '.join(get_args(OnDuplicate))}")
    values = checked(model, fields)
    for name in model.__tracking__.natural_key.columns if model.__tracking__.natural_key else ():
        if name not in values:
            raise InvalidField(name, None, "is part of the natural key, so it must be given")
    values.setdefault("celery_task_id", str(uuid4()))
    while True:
        added = db.execute(*_insertion(model, values)).first()
        if added is not None:
            return AddedRow(added.id, values["celery_task_id"], Added.CREATED, Status.PENDING)
        key = natural_key_of(model, values)
        there = by_natural_key(db, model, key)
        if there is None:
            continue  # deleted between the two statements: try to add again
        status = Status(there.status)
        if on_duplicate == "error":
            raise DuplicateTracking(model.__tracking__.domain, there.id, key, status)
        if on_duplicate == "restart" and status in REVIVABLE:
            return _restart(db, model, there, values)
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
    for row in values:
        if odd := sorted(row.keys() ^ values[0].keys()):
            raise InvalidField(odd[0], row.get(odd[0]), "is given for some of the rows only")
    if keys.keys_of(model) is None:
        added = db.execute(statements.insert_many_if_absent(model), values).all()
    else:
        batches = keys.batches(values)
        added = [row for batch in batches for row in db.execute(*keys.insert_if_absent(model, batch))]
    return [AddedRow(row.id, row.celery_task_id, Added.CREATED, Status.PENDING) for row in added]


def mark_dispatched(db: Database, model: type[BaseTaskTracking], ids: Sequence[int]) -> None:
    """Note that the messages of these rows went out; rows no longer PENDING are left alone."""
    db.execute(statements.mark_dispatched_if_pending(model), {"_ids": list(ids)})


def _insertion(model: type[BaseTaskTracking], values: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    if keys.keys_of(model) is None:
        return statements.insert_if_absent(model), values
    return keys.insert_if_absent(model, [values])


def _restart(
    db: Database, model: type[BaseTaskTracking], there: Row[Any], values: Mapping[str, Any]
) -> AddedRow:
    grant, due = values.get("max_attempts") or 1, values.get("next_attempt_at", IMMEDIATELY)
    try:
        return revive(db, model, there.id, grant=grant, due=due)
    except (WrongState, TrackingNotFound):  # somebody else restarted or removed it just now
        row = get(db, model, there.id)
        return AddedRow(row.id, row.celery_task_id, Added.EXISTING, Status(row.status))
