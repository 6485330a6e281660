"""A tracked task: what ``@trail.task`` makes of a function, with the ways to enqueue it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Generic, TypeVar

from celery import Task
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from tasktrail import tracker
from tasktrail.celery.outbox import send_after_commit
from tasktrail.celery.publish import Message, Publisher
from tasktrail.engines import Engines
from tasktrail.errors import InvalidField
from tasktrail.models import BaseTaskTracking
from tasktrail.registry import Domain
from tasktrail.states import Status
from tasktrail.tracker import Added, AddedRow, OnDuplicate

ModelT = TypeVar("ModelT", bound=BaseTaskTracking)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The row that an ``enqueue`` came to.

    Attributes:
        domain: its domain.
        id: its id.
        outcome: whether it was created, was there already, or was restarted.
        status: its state at that moment.
        celery_task_id: the id its message goes out under.
    """

    domain: str
    id: int
    outcome: Added
    status: Status
    celery_task_id: str | None


@dataclass(frozen=True, slots=True)
class EnqueuedMany:
    """What an ``enqueue_many`` came to.

    Attributes:
        created: how many rows are new.
        existing: how many had a natural key that was taken.
        dispatched: how many messages went out; the rest is sent by maintenance.
    """

    created: int
    existing: int
    dispatched: int


class TrackedTask(Generic[ModelT]):
    """One domain's Celery task, whose every job is a row.

    Attributes:
        domain: the domain.
        celery_task: the Celery task; apply it to row ids only.
    """

    def __init__(
        self,
        domain: Domain,
        celery_task: Task[Any, Any],
        engines: Engines,
        publisher: Publisher,
        eta_horizon: float,
    ) -> None:
        self.domain = domain
        self.celery_task = celery_task
        self._engines = engines
        self._publisher = publisher
        self._eta_horizon = eta_horizon

    @property
    def name(self) -> str:
        """Name of the Celery task."""
        return str(self.celery_task.name)

    def enqueue(
        self, session: Session | None = None, /, *, on_duplicate: OnDuplicate = "return", **fields: Any
    ) -> Enqueued:
        """Add a row and send its message, or find the row that tracks the same unit of work.

        Args:
            session: your session; the row joins its transaction, and the message goes out after the commit
                or, after a rollback, never. Without one, the row is committed here.
            on_duplicate: when the natural key is taken, ``"return"`` the row there is; ``"restart"`` it if it
                is FAILED or CANCELLED, else return it; or raise an ``"error"``.
            **fields: the domain's columns, and ``max_attempts`` or ``next_attempt_at`` if wanted.

        Returns:
            The row and how it came about.

        Raises:
            InvalidField: a field is not acceptable; nothing was written.
            DuplicateTracking: the natural key is taken and ``on_duplicate`` is ``"error"``.
            DatabaseUnavailable: the database cannot be reached.
            BrokerUnavailable: the broker cannot be reached; nothing was written. With a session of yours
                the broker is not asked first: the row is kept and maintenance sends its message.
        """
        values = self._with_defaults(fields)
        if session is not None:
            row = tracker.create(session, self.domain.model, values, on_duplicate=on_duplicate)
            for message in self._messages([row], values):
                send_after_commit(session, message, self._publisher.send)
            return self._enqueued(row)
        self._publisher.require_broker()
        with self._engines.pooled() as db:
            row = tracker.create(db, self.domain.model, values, on_duplicate=on_duplicate)
        self._publisher.send(self._messages([row], values))
        return self._enqueued(row)

    async def aenqueue(
        self, session: AsyncSession | None = None, /, *, on_duplicate: OnDuplicate = "return", **fields: Any
    ) -> Enqueued:
        """Like ``enqueue``, for coroutines; the broker is talked to on another thread."""
        if session is None:
            return await asyncio.to_thread(self.enqueue, on_duplicate=on_duplicate, **fields)
        values = self._with_defaults(fields)

        def write(db: Session) -> AddedRow:
            row = tracker.create(db, self.domain.model, values, on_duplicate=on_duplicate)
            for message in self._messages([row], values):
                send_after_commit(db, message, self._send_from_coroutine)
            return row

        return self._enqueued(await session.run_sync(write))

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]], *, batch_size: int = 1000) -> EnqueuedMany:
        """Add many rows: one INSERT and one pipeline of messages for each batch, each batch committed.

        Rows whose natural key is taken are left out. The iterable is read batch by batch, so a generator of
        any length takes the memory of one batch.

        Args:
            rows: the fields of each row, all with the same names.
            batch_size: how many rows go into one statement.

        Returns:
            How many are new, were there already, and were dispatched.

        Raises:
            InvalidField: a field of some row is not acceptable; its batch was not written, earlier ones were.
            DatabaseUnavailable: the database cannot be reached.
            BrokerUnavailable: the broker cannot be reached; nothing was written.
        """
        if batch_size < 1:
            raise InvalidField("batch_size", batch_size, "must be at least 1")
        self._publisher.require_broker()
        remaining = iter(rows)
        asked = created = dispatched = 0
        while batch := [self._with_defaults(row) for row in islice(remaining, batch_size)]:
            with self._engines.pooled() as db:
                added = tracker.create_many(db, self.domain.model, batch)
            asked += len(batch)
            created += len(added)
            messages = self._messages(added, batch[0])
            dispatched += len(messages) if self._publisher.send(messages) else 0
        return EnqueuedMany(created, asked - created, dispatched)

    def _with_defaults(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"max_attempts": self.domain.policy.max_attempts, **fields}

    def _messages(self, rows: Iterable[AddedRow], values: Mapping[str, Any]) -> list[Message]:
        due = values.get("next_attempt_at")
        countdown = 0.0 if due is None else max(0.0, (due - datetime.now(UTC)).total_seconds())
        if countdown > self._eta_horizon:
            return []
        return [
            Message(self.domain.model, self.celery_task, row.id, row.celery_task_id, countdown)
            for row in rows
            if row.outcome is not Added.EXISTING
        ]

    def _send_from_coroutine(self, messages: list[Message]) -> None:
        await_only(asyncio.to_thread(self._publisher.send, messages))

    def _enqueued(self, row: AddedRow) -> Enqueued:
        return Enqueued(self.domain.name, row.id, row.outcome, row.status, row.celery_task_id)
