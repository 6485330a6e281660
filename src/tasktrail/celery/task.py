"""A tracked task: what ``@trail.task`` makes of a function, with the ways to enqueue it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Generic, TypeVar
from uuid import uuid4

from celery import Task
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from tasktrail import sweeps, tracker
from tasktrail.celery.bulk import BATCH, Chosen, server_now
from tasktrail.celery.enqueued import Enqueued, EnqueuedMany, Revived
from tasktrail.celery.execution import WorkerParts
from tasktrail.celery.messages import Message
from tasktrail.celery.outbox import Send, send_after_commit
from tasktrail.errors import InvalidField, clean_text
from tasktrail.filters import Filter
from tasktrail.guards import table_of
from tasktrail.models import BaseTaskTracking
from tasktrail.prerequisites import (
    IfUnmet,
    Prerequisite,
    Reference,
    TrackingRef,
    dependents_of,
    prerequisites_of,
    wait_for,
)
from tasktrail.registry import Domain, Registry
from tasktrail.states import ACTIVE, REVIVABLE, Status
from tasktrail.tracker import IMMEDIATELY, Added, AddedRow, OnDuplicate

ModelT = TypeVar("ModelT", bound=BaseTaskTracking)


@dataclass(frozen=True, slots=True)
class _Request:
    """What an ``enqueue`` was asked for."""

    fields: dict[str, Any]
    on_duplicate: OnDuplicate
    after: tuple[Reference, ...]
    if_unmet: IfUnmet


class TrackedTask(Generic[ModelT]):
    """One domain's Celery task, whose every job is a row.

    Attributes:
        domain: the domain.
        celery_task: the Celery task; apply it to row ids only.
    """

    def __init__(
        self, domain: Domain, celery_task: Task[Any, Any], parts: WorkerParts, registry: Registry
    ) -> None:
        self.domain = domain
        self.celery_task = celery_task
        self._parts = parts
        self._engines = parts.engines
        self._publisher = parts.publisher
        self._registry = registry

    @property
    def name(self) -> str:
        """Name of the Celery task."""
        return str(self.celery_task.name)

    def enqueue(
        self,
        session: Session | None = None,
        /,
        *,
        on_duplicate: OnDuplicate = "return",
        after: Collection[Reference] = (),
        if_unmet: IfUnmet = "cancel",
        **fields: Any,
    ) -> Enqueued:
        """Add a row and send its message, or find the row that tracks the same unit of work.

        Args:
            session: your session; the row joins its transaction, and the message goes out after the commit
                or, after a rollback, never. Without one, the row is committed here.
            on_duplicate: when the natural key is taken, ``"return"`` the row there is; ``"restart"`` it if it
                is FAILED or CANCELLED, else return it; or raise an ``"error"``. What is restarted keeps its
                columns; of the fields, only ``next_attempt_at`` and ``max_attempts`` count, the latter as the
                number of further attempts.
            after: rows, of any domain, that must be COMPLETED before this one starts; it is due when they
                are. A row that was there already and goes on keeps the prerequisites it has.
            if_unmet: when one of those fails or is cancelled, ``"cancel"`` the row, let it ``"wait"`` for an
                operator, or ``"proceed"``.
            **fields: the domain's columns, and ``max_attempts`` or ``next_attempt_at`` if wanted.

        Returns:
            The row and how it came about.

        Raises:
            InvalidField: a field is not acceptable, or prerequisites form a cycle; nothing was written.
            TrackingNotFound: a prerequisite does not exist; nothing was written.
            DuplicateTracking: the natural key is taken and ``on_duplicate`` is ``"error"``.
            DatabaseUnavailable: the database cannot be reached.
            BrokerUnavailable: the broker cannot be reached; nothing was written. With a session of yours
                the broker is not asked first: the row is kept and maintenance sends its message.
        """
        request = _Request(self._with_defaults(fields), on_duplicate, tuple(after), if_unmet)
        if session is not None:
            row = self._write(session, request, self._publisher.send)
            return self._enqueued(row)
        self._publisher.require_broker()
        if after or on_duplicate == "restart":  # what is restarted may wait for others, too
            with self._engines.errors(), Session(self._engines.sync) as own:
                row = self._write(own, request, self._publisher.send)
                own.commit()
            return self._enqueued(row)
        with self._engines.pooled() as db:
            row = tracker.create(db, self.domain.model, request.fields, on_duplicate=on_duplicate)
        self._publisher.send(self._messages([row], request.fields))
        return self._enqueued(row)

    async def aenqueue(
        self,
        session: AsyncSession | None = None,
        /,
        *,
        on_duplicate: OnDuplicate = "return",
        after: Collection[Reference] = (),
        if_unmet: IfUnmet = "cancel",
        **fields: Any,
    ) -> Enqueued:
        """Like ``enqueue``, for coroutines; the broker is talked to on another thread."""
        if session is None:
            return await asyncio.to_thread(
                self.enqueue,
                on_duplicate=on_duplicate,
                after=after,
                if_unmet=if_unmet,
                **fields,
            )
        request = _Request(self._with_defaults(fields), on_duplicate, tuple(after), if_unmet)
        row = await session.run_sync(lambda db: self._write(db, request, self._send_from_coroutine))
        return self._enqueued(row)

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
        while batch := [
            {"celery_task_id": str(uuid4()), **self._with_defaults(row)}
            for row in islice(remaining, batch_size)
        ]:
            with self._engines.pooled() as db:
                added = tracker.create_many(db, self.domain.model, batch)
            asked += len(batch)
            created += len(added)
            due = {row["celery_task_id"]: row for row in batch}
            messages = [
                message for row in added for message in self._messages([row], due[row.celery_task_id])
            ]
            dispatched += len(messages) if self._publisher.send(messages) else 0
        return EnqueuedMany(created, asked - created, dispatched)

    def cancel(self, tracking_id: int, reason: str, *, session: Session | None = None) -> None:
        """Cancel a row: PENDING at once, PROCESSING when its worker notices at the next heartbeat.

        A coroutine is cancelled there; a ``def`` body sees ``run.cancelled``. Whatever it still does with
        ``run.session`` is rolled back.

        Args:
            tracking_id: the row.
            reason: why; kept in ``error_message``.
            session: your session, whose transaction this joins; without one it is committed here.

        Raises:
            TrackingNotFound: there is no such row.
            WrongState: it has ended already; the error says in which state.
        """
        with nullcontext(session) if session is not None else self._engines.pooled() as db:
            tracker.cancel(db, self.domain.model, tracking_id, reason)

    def retry(self, tracking_id: int, *, session: Session | None = None) -> Enqueued:
        """Start a FAILED or CANCELLED row again; its attempts stay in the log, and it gets another round.

        Args:
            tracking_id: the row.
            session: your session, whose transaction this joins; without one it is committed here.

        Raises:
            TrackingNotFound: there is no such row.
            WrongState: it has not ended, or is COMPLETED; the error says in which state it is.
            BrokerUnavailable: the broker cannot be reached; nothing was written.
        """
        if session is None:
            self._publisher.require_broker()
            with self._engines.errors(), Session(self._engines.sync) as own, own.begin():
                return self.retry(tracking_id, session=own)
        row = tracker.revive(session, self.domain.model, tracking_id, grant=self.domain.policy.max_attempts)
        if row.id not in self._hold(session, [row.id]):
            for message in self._messages([row], {}):
                send_after_commit(session, message, self._publisher.send)
        return self._enqueued(row)

    def retry_where(self, chosen: Filter) -> int:
        """Start all FAILED and CANCELLED rows of a filter again, in batches, each committed.

        Args:
            chosen: which rows; those in other states, and those that fail meanwhile, are left alone.

        Returns:
            How many were started; 0 when the filter matched none, and then nothing changed.

        Raises:
            InvalidField: the filter names an unknown column.
            BrokerUnavailable: the broker cannot be reached; nothing was written.
        """
        self._publisher.require_broker()
        # Or a job that fails at once would be found again by the next batch, and so for ever.
        is_older = table_of(self.domain.model).c.updated_at <= server_now(self._engines)
        rows_meant = self._chosen(chosen, REVIVABLE, is_older)

        def start_batch() -> int:
            with self._engines.errors(), self._engines.sync.begin() as db:
                revived = self.retry_some(db, rows_meant.conditions, BATCH)
            self.send(revived)
            return len(revived.ids)

        return rows_meant.until_none_is_left(start_batch)

    def cancel_where(self, chosen: Filter, reason: str) -> int:
        """Cancel all PENDING and PROCESSING rows of a filter, in batches, each committed.

        Args:
            chosen: which rows; those that have ended or are created meanwhile are left alone.
            reason: why; kept in ``error_message``.

        Returns:
            How many were cancelled; 0 when the filter matched none, and then nothing changed.

        Raises:
            InvalidField: the filter names an unknown column.
        """
        is_older = table_of(self.domain.model).c.created_at <= server_now(self._engines)
        rows_meant = self._chosen(chosen, ACTIVE, is_older)

        def cancel_batch() -> int:
            with self._engines.pooled() as db:
                return len(self.cancel_some(db, rows_meant.conditions, reason, BATCH))

        return rows_meant.until_none_is_left(cancel_batch)

    def retry_some(
        self, db: tracker.Database, conditions: Sequence[ColumnElement[bool]], size: int
    ) -> Revived:
        """Start a batch of FAILED and CANCELLED rows again, in your transaction; ``send`` it after that.

        Args:
            db: session or connection; the caller commits.
            conditions: which rows; those that somebody writes just now are skipped.
            size: how many at most, those with the lowest ids.
        """
        statement = sweeps.revive_batch_if_ended(self.domain.model, conditions)
        found = db.execute(statement, {"_batch": size, "_grant": self.domain.policy.max_attempts})
        rows = [AddedRow(row.id, row.celery_task_id, Added.RESTARTED, Status.PENDING) for row in found]
        held = self._hold(db, [row.id for row in rows])
        return Revived(tuple(row.id for row in rows), tuple(row for row in rows if row.id not in held))

    def cancel_some(
        self, db: tracker.Database, conditions: Sequence[ColumnElement[bool]], reason: str, size: int
    ) -> tuple[int, ...]:
        """Cancel a batch of PENDING and PROCESSING rows, in your transaction; see ``retry_some``."""
        statement = sweeps.cancel_batch_if_active(self.domain.model, conditions)
        found = db.execute(statement, {"_batch": size, "_error": clean_text(reason)})
        return tuple(found.scalars())

    def send(self, revived: Revived) -> None:
        """Send the messages of rows that were started again; what cannot go out, maintenance sends later."""
        self._publisher.send(self._messages(revived.due, {}))

    def count_where(self, chosen: Filter, states: Collection[Status]) -> int:
        """Count the rows of a filter that are in one of these states.

        Args:
            chosen: which rows.
            states: the states that count.

        Raises:
            InvalidField: the filter names an unknown column.
        """
        return self._chosen(chosen, states).count()

    def prerequisites(self, tracking_id: int) -> list[Prerequisite]:
        """List the rows that a row waits for or waited for."""
        with self._engines.pooled() as db:
            return prerequisites_of(db, self.domain.model, self._parts.schema, tracking_id)

    def dependents(self, tracking_id: int) -> list[TrackingRef]:
        """List the rows that wait or waited for a row."""
        with self._engines.pooled() as db:
            return dependents_of(db, self._parts.schema, TrackingRef(self.domain.name, tracking_id))

    def _write(self, db: Session, request: _Request, send: Send) -> AddedRow:
        model = self.domain.model
        fields = request.fields
        if request.after:
            due = fields.get("next_attempt_at")
            if due is not None:
                raise InvalidField(
                    "next_attempt_at", due, "a row with prerequisites is due when they are met"
                )
            fields = {**fields, "next_attempt_at": None}
        # A prerequisite that is refused takes the row back with it, and not the caller's transaction.
        with db.begin_nested() if request.after else nullcontext():
            row = tracker.create(db, model, fields, on_duplicate=request.on_duplicate)
            if row.outcome is Added.EXISTING:
                return row
            if request.after:
                wait_for(
                    db,
                    self._registry,
                    self._parts.schema,
                    TrackingRef(self.domain.name, row.id),
                    request.after,
                    is_new=row.outcome is Added.CREATED,
                    if_unmet=request.if_unmet,
                )
        may_wait = bool(request.after) or row.outcome is Added.RESTARTED
        if row.id not in self._hold(db, [row.id] if may_wait else []):
            for message in self._messages([row], request.fields):
                send_after_commit(db, message, send)
        return row

    def _chosen(self, chosen: Filter, states: Collection[Status], *more: ColumnElement[bool]) -> Chosen:
        model = self.domain.model
        return Chosen(self._engines, model, (*chosen.conditions(model), *more), states)

    def _hold(self, db: tracker.Database, ids: list[int]) -> set[int]:
        if not ids:
            return set()
        statement = sweeps.hold_if_prerequisites_unmet(self.domain.model, self._parts.schema)
        return set(db.execute(statement, {"_ids": ids}).scalars())

    def _with_defaults(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"max_attempts": self.domain.policy.max_attempts, **fields}

    def _messages(self, rows: Iterable[AddedRow], values: Mapping[str, Any]) -> list[Message]:
        due = values.get("next_attempt_at", IMMEDIATELY)
        countdown = max(0.0, (due - datetime.now(UTC)).total_seconds()) if due is not None else math.inf
        if countdown > self._parts.eta_horizon:
            return []  # maintenance sends it when it is due; a row without a due time waits to be given one
        return [
            Message(self.domain.model, self.celery_task, row.id, row.celery_task_id, countdown)
            for row in rows
            if row.outcome is not Added.EXISTING
        ]

    def _send_from_coroutine(self, messages: list[Message]) -> None:
        await_only(asyncio.to_thread(self._publisher.send, messages))

    def _enqueued(self, row: AddedRow) -> Enqueued:
        return Enqueued(self.domain.name, row.id, row.outcome, row.status, row.celery_task_id)
