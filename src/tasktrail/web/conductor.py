"""Works on operations on many rows, on a thread of its own, in bounded batches.

Any process that serves the API does so. An operation belongs to whoever holds its lease, and a process that
dies loses it: another one goes on after the last batch that was counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import ColumnElement
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tasktrail.access import operations
from tasktrail.access.operations import Action, Operation
from tasktrail.celery import Revived, TrackedTask, Trail
from tasktrail.errors import DatabaseUnavailable, TasktrailError
from tasktrail.guards import in_state, table_of
from tasktrail.masking import mask_text
from tasktrail.monitoring.queries import in_group
from tasktrail.registry import Domain
from tasktrail.states import ACTIVE, REVIVABLE, Status
from tasktrail.web.choosing import Given, meant

logger = logging.getLogger(__name__)

BATCH: Final = 500
"""How many rows one transaction takes."""

LOOK: Final = 5.0
"""How often it looks for operations that nobody works on, in seconds."""

PATIENCE: Final = 10.0
"""How long rows that somebody keeps locked are waited for, in seconds."""

STATES: Final = {Action.RETRY: REVIVABLE, Action.CANCEL: ACTIVE}
"""The states in which a row can be meant."""


class Conductor:
    """The thread of one process, begun when it is first needed."""

    def __init__(self, trail: Trail) -> None:
        """Remember what it is about; nothing is begun."""
        self._trail = trail
        self._me = uuid4()
        self._pid = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Make sure that the thread runs, also in a process that was forked."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._me, self._pid = uuid4(), os.getpid()
                self._wake, self._stop = threading.Event(), threading.Event()
                self._thread = threading.Thread(target=self._run, name="tasktrail operations", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Look for an operation now."""
        self.ensure()
        self._wake.set()

    def close(self) -> None:
        """End the thread after its batch; what it works on is taken up by another process."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(PATIENCE)
        self._pid = 0

    def work(self) -> Operation | None:
        """Take up one operation and work on it until it ends or is taken away.

        Returns:
            The operation as it was taken up; ``None`` when there is none.
        """
        trail = self._trail
        with trail.engines.pooled() as db:
            operation = operations.claim(db, trail.schema, self._me)
        if operation is None:
            return None
        try:
            self._work_on(operation)
        except DatabaseUnavailable:
            raise  # the lease runs out, and whoever reaches the database goes on
        except (TasktrailError, DBAPIError) as error:
            logger.exception("operation %d failed", operation.id)
            said = mask_text(str(error))[:2000]
            with trail.engines.errors(), Session(trail.engines.sync) as session, session.begin():
                operations.finish(session, trail.schema, operation.id, self._me, error=said)
        return operation

    def _run(self) -> None:
        stop, wake = self._stop, self._wake
        while not stop.is_set():
            wake.clear()
            try:
                while not stop.is_set() and self.work() is not None:
                    pass
            except DatabaseUnavailable as error:
                logger.warning("operations wait: %s", error)
            except Exception:  # the next look may do better
                logger.exception("operations are looked for again in %g s", LOOK)
            wake.wait(LOOK)

    def _work_on(self, operation: Operation) -> None:
        task = self._trail.task_of(operation.domain)
        conditions = conditions_of(task.domain, operation.action, operation.filter, operation.as_of)
        patient_until = None
        while not self._stop.is_set():
            began = time.monotonic()
            taken = self._batch(task, operation, conditions)
            if taken is None:
                return  # stopped, or somebody else's by now
            operation, count = taken
            if count:
                patient_until = None
                self._rest(operation.rate, count, began)
                continue
            if not self._has_rows(operation, conditions):
                break
            patient_until = patient_until or began + PATIENCE
            if began >= patient_until:
                break  # somebody keeps them locked, and so they are theirs
            self._stop.wait(0.05)
        else:
            return
        with self._trail.engines.errors(), Session(self._trail.engines.sync) as db, db.begin():
            operations.finish(db, self._trail.schema, operation.id, self._me)

    def _batch(
        self, task: TrackedTask[Any], operation: Operation, conditions: list[ColumnElement[bool]]
    ) -> tuple[Operation, int] | None:
        """Write one batch and count it, in one transaction; after the last row begin at the first again."""
        trail = self._trail
        beyond = table_of(task.domain.model).c.id > operation.cursor
        size = min(BATCH, operation.rate or BATCH)
        revived: Revived | None = None
        with trail.engines.errors(), Session(trail.engines.sync) as db:
            if operation.action is Action.RETRY:
                revived = task.retry_some(db, [*conditions, beyond], size)
                ids = revived.ids
            else:
                ids = task.cancel_some(db, [*conditions, beyond], operation.reason or "", size)
            cursor = max(ids, default=0)
            if not operations.advance(db, trail.schema, operation.id, self._me, done=len(ids), cursor=cursor):
                db.rollback()
                return None
            db.commit()
        if revived is not None:
            task.send(revived)
        return replace(operation, cursor=cursor, done=operation.done + len(ids)), len(ids)

    def _has_rows(self, operation: Operation, conditions: list[ColumnElement[bool]]) -> bool:
        table = table_of(self._trail.registry.get(operation.domain).model)
        query = table.select().with_only_columns(table.c.id).where(*conditions).limit(1)
        with self._trail.engines.pooled() as db:
            return db.execute(query).first() is not None

    def _rest(self, rate: int, count: int, began: float) -> None:
        """Wait until as much time has passed as the batch may take; wake up for the lease in between."""
        if rate:
            self._stop.wait(max(0.0, count / rate - (time.monotonic() - began)))


def conditions_of(
    domain: Domain, action: Action, given: Given, as_of: datetime | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions of the rows that an action means.

    Args:
        domain: the domain.
        action: what is done.
        given: which rows, as the parameters of a query string.
        as_of: only those that were meant at this moment already. Without it a job that fails again at once
            would be found by the next batch, and so for ever.

    Raises:
        InvalidField: the filter does not fit the domain.
    """
    table = table_of(domain.model)
    found = meant(domain, given)
    conditions = [in_state(table, *STATES[action]), *found.chosen.conditions(domain.model)]
    if found.group is not None:
        conditions += in_group(domain, found.group)
    if as_of is not None:
        since = table.c.updated_at if action is Action.RETRY else table.c.created_at
        conditions.append(since <= as_of)
    return conditions


def states_of(action: Action) -> frozenset[Status]:
    """Return the states in which a row can be meant by an action."""
    return frozenset(STATES[action])
