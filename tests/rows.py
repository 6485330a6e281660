"""What the tests of the tracking core do with rows: make them, read them, race for them, drop a guard."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.sql.dml import ReturningUpdate

from tasktrail import BaseTaskTracking, Status, tracker
from tasktrail.retry import NoRetry
from tasktrail.tracker import Claim
from tests.support import JobTracking

Model = type[BaseTaskTracking]
_task_numbers = count(1)


def add_job(engine: Engine, **fields: Any) -> int:
    """Add a row of the simplest domain and commit it."""
    with engine.begin() as db:
        return tracker.create(db, JobTracking, fields).id


def claim(engine: Engine, job: int, task: str | None = "task 1", worker: str | None = "w1") -> Claim:
    """Claim a row on a connection of its own and commit."""
    with engine.begin() as db:
        return tracker.claim(db, JobTracking, job, celery_task_id=task, worker=worker)


def add_job_in(engine: Engine, status: Status, **fields: Any) -> int:
    """Add a row and take it to a state as a worker or an operator would."""
    job = add_job(engine, **fields)
    if status is Status.PENDING:
        return job
    fence = claim(engine, job, task=f"task {next(_task_numbers)}").fence
    with engine.begin() as db:
        if status is Status.COMPLETED:
            tracker.complete(db, JobTracking, fence)
        elif status is Status.FAILED:
            tracker.fail(db, JobTracking, fence, NoRetry("no"), error="ValueError: no")
        elif status is Status.CANCELLED:
            tracker.cancel(db, JobTracking, job, "nobody wants it")
    return job


def columns(engine: Engine, tracking_id: int, model: Model = JobTracking) -> dict[str, Any]:
    """Return every column of a row."""
    table = model.__table__
    with engine.connect() as db:
        return dict(db.execute(table.select().where(table.c.id == tracking_id)).one()._mapping)


def count_rows(engine: Engine, model: Model = JobTracking) -> int:
    """Return how many rows a domain has."""
    with engine.connect() as db:
        return db.scalar(text(f"SELECT count(*) FROM {model.__table__.fullname}"))


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Poll a condition; fail when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"


def somebody_waits_for_a_lock(engine: Engine) -> bool:
    """Whether a connection to this database waits for a row that another one has written."""
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as db:
        return db.scalar(text(query)) is not None


def _guarded(clause: Any) -> str:
    """Name the column a guard is about; the state stands in an expression."""
    return getattr(clause.left, "name", None) or clause.left.left.name


def guards_of(statement: ReturningUpdate[Any]) -> list[str]:
    """Return the columns that the guards of a statement compare."""
    return [_guarded(clause) for clause in statement._where_criteria]


def without_guard(statement: ReturningUpdate[Any], column: str) -> ReturningUpdate[Any]:
    """Return a statement that lacks the guard on one column: what a careless change would leave of it."""
    kept = tuple(clause for clause in statement._where_criteria if _guarded(clause) != column)
    assert len(kept) == len(statement._where_criteria) - 1
    careless = statement._generate()
    careless._where_criteria = kept
    return careless
