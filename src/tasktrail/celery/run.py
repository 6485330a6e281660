"""What the body of a tracked task is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import UpdateBase

from tasktrail import tracker
from tasktrail.engines import Durability, Engines
from tasktrail.errors import ConfigurationError, WaitFor
from tasktrail.models import BaseTaskTracking
from tasktrail.prerequisites import Prerequisite, TrackingRef, prerequisites_of, wait_for
from tasktrail.registry import Registry
from tasktrail.states import Status
from tasktrail.tracker import Claim

ModelT = TypeVar("ModelT", bound=BaseTaskTracking)


class Run(Generic[ModelT]):
    """One attempt of one row, while its body runs.

    Methods with the prefix ``a`` are the same operations for coroutines.

    Attributes:
        id: the row.
        model: the domain's model.
        fence: proves that this attempt owns the row.
        domain: its domain.
        number: which attempt this is, from 1.
        max_attempts: how many may fail.
        completed: whether the row is COMPLETED already.
        is_held: whether the row, given back, waits for others; ``None`` while it was not given back.
    """

    def __init__(
        self,
        model: type[ModelT],
        claim: Claim,
        engines: Engines,
        registry: Registry,
        schema: str | None,
    ) -> None:
        self.model = model
        self._registry = registry
        self._schema = schema
        self.fence = claim.fence
        self._claim = claim
        self._engines = engines
        self._session: Session | None = None
        self._asession: AsyncSession | None = None
        self.id = claim.fence.tracking_id
        self.domain = model.__tracking__.domain
        self.number = claim.fence.attempts + 1
        self.max_attempts = claim.max_attempts
        self.completed = False
        self.is_held: bool | None = None
        self._note: str | None = None
        self._stop_reason: str | None = None
        self._on_stop: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Run {self.domain} {self.id}, attempt {self.number} of {self.max_attempts}>"

    @property
    def cancelled(self) -> bool:
        """Whether the row was cancelled or taken over meanwhile; a long ``def`` body looks here and returns.

        A coroutine needs not look: it is cancelled. Known one heartbeat after it happened, at the latest.
        """
        return self._stop_reason is not None

    @property
    def cancel_reason(self) -> str | None:
        """Why the row is no longer this attempt's; ``None`` while it is."""
        return self._stop_reason

    def stop(self, reason: str) -> None:
        """Tell the body that the row is no longer its own; called by the heartbeat, on its thread."""
        if self._stop_reason is None:
            self._stop_reason = reason
            if self._on_stop is not None:
                self._on_stop()

    def on_stop(self, cancel: Callable[[], None]) -> None:
        """Have a function called when the run is stopped."""
        self._on_stop = cancel
        if self._stop_reason is not None:
            cancel()

    @cached_property
    def row(self) -> ModelT:
        """The row as it was claimed, detached: its inputs are attributes, e.g. ``run.row.update_date``."""
        fence = self.fence
        make: Callable[..., ModelT] = self.model  # the mapped class takes its columns, the mixin does not
        return make(
            id=fence.tracking_id,
            status=Status.PROCESSING.value,
            attempts=fence.attempts,
            max_attempts=self._claim.max_attempts,
            created_at=self._claim.created_at,
            started_at=fence.started_at,
            celery_task_id=fence.celery_task_id,
            **self._claim.inputs,
        )

    @property
    def session(self) -> Session:
        """A session that is committed together with the row's completion, or not at all.

        What the body writes here takes effect exactly once: if the attempt fails, was superseded or was
        cancelled, it is rolled back.
        """
        if self._asession is not None:
            raise ConfigurationError(f"{self!r} uses asession already; one transaction completes a row")
        if self._session is None:
            self._session = Session(self._engines.sync)
        return self._session

    @property
    def asession(self) -> AsyncSession:
        """Like ``session``, for coroutines."""
        if self._session is not None:
            raise ConfigurationError(f"{self!r} uses session already; one transaction completes a row")
        if self._asession is None:
            self._asession = AsyncSession(self._engines.asynchronous)
        return self._asession

    @property
    def uses_session(self) -> bool:
        """Whether the body asked for ``session`` or ``asession``."""
        return self._session is not None or self._asession is not None

    def progress(self, done: int | None = None, total: int | None = None) -> None:
        """Write how far the job has come, at once, to the columns the domain declared for it.

        Args:
            done: how much is done; ``None`` leaves it as it is.
            total: how much there is to do; ``None`` leaves it as it is.

        Raises:
            InvalidField: a number is negative, or the domain declares no progress columns.
            FencedOut: this attempt was superseded; stop.
        """
        with self._engines.kept("relaxed") as db:
            tracker.progress(db, self.model, self.fence, done=done, total=total)

    def record(self, **values: Any) -> None:
        """Write domain columns of the row, at once, e.g. what the job found.

        Args:
            **values: column names and values.

        Raises:
            InvalidField: a name is no domain column, or a value does not fit it.
            FencedOut: this attempt was superseded; stop.
        """
        with self._engines.kept() as db:
            tracker.record(db, self.model, self.fence, values)

    def note(self, text: str) -> None:
        """Say what was not quite as asked; kept in ``error_message`` when the row is COMPLETED.

        Args:
            text: a sentence for people.
        """
        self._note = text

    async def aprogress(self, done: int | None = None, total: int | None = None) -> None:
        """Like ``progress``, for coroutines."""
        await self._write_on_a_thread(
            "relaxed", lambda db: tracker.progress(db, self.model, self.fence, done=done, total=total)
        )

    async def arecord(self, **values: Any) -> None:
        """Like ``record``, for coroutines."""
        await self._write_on_a_thread(
            "durable", lambda db: tracker.record(db, self.model, self.fence, values)
        )

    async def _write_on_a_thread(
        self, durability: Durability, write: Callable[[tracker.Database], None]
    ) -> None:
        """Write on one of the loop's threads, with a connection on loan: they may be many, and live on."""

        def with_a_loan() -> None:
            with self._engines.pooled(durability) as db:
                write(db)

        await asyncio.to_thread(with_a_loan)

    def complete(self, db: tracker.Database) -> None:
        """End the row as COMPLETED, in the transaction of ``session`` if the body used it.

        Args:
            db: a connection on which each statement commits, for when it did not.

        Raises:
            FencedOut: this attempt was superseded; what the body wrote in ``session`` is rolled back.
        """
        if self.completed:
            return
        if self._session is None:
            tracker.complete(db, self.model, self.fence, note=self._note)
        else:
            with self._engines.errors(), self._session as session:
                tracker.complete(session, self.model, self.fence, note=self._note)
                session.commit()
        self.completed = True

    def completion(self) -> tuple[UpdateBase, dict[str, Any]]:
        """Return the statement that ends the row as COMPLETED, and its parameters, for who sends it."""
        return tracker.completion(self.model, self.fence, note=self._note)

    def defer(self, wait: WaitFor) -> None:
        """Give the row back and hold it until its prerequisites are met, in the transaction of ``session``.

        Args:
            wait: what the body raised.

        Raises:
            FencedOut: this attempt was superseded; what the body wrote in ``session`` is rolled back.
            TrackingNotFound: a prerequisite does not exist; likewise.
            InvalidField: the row would wait for itself; likewise.
        """
        if self.is_held is None:
            with self._engines.errors(), self._session or Session(self._engines.sync) as session:
                self.is_held = self._hold(session, wait)
                session.commit()

    async def defer_in_asession(self, wait: WaitFor) -> None:
        """Like ``defer``, in the transaction of ``asession``, if the body used it."""
        if self._asession is None:
            return
        with self._engines.errors():
            async with self._asession as session:
                self.is_held = await session.run_sync(self._hold, wait)
                await session.commit()

    def prerequisites(self) -> list[Prerequisite]:
        """List the rows that this one was enqueued after, or raised ``WaitFor`` about, so far.

        A body that raises ``WaitFor`` finds out here whether it comes back: then some of them are current.
        """
        with self._engines.pooled() as db:
            return prerequisites_of(db, self.model, self._schema, self.id)

    async def aprerequisites(self) -> list[Prerequisite]:
        """Like ``prerequisites``, for coroutines."""
        return await asyncio.to_thread(self.prerequisites)

    def _hold(self, db: Session, wait: WaitFor) -> bool:
        tracker.release(db, self.model, self.fence)
        ref = TrackingRef(self.domain, self.id)
        after: Any = wait.after
        return wait_for(db, self._registry, self._schema, ref, after, is_new=False, if_unmet=wait.if_unmet)

    async def complete_in_asession(self) -> None:
        """End the row as COMPLETED in the transaction of ``asession``, if the body used it.

        Raises:
            FencedOut: this attempt was superseded; what the body wrote in ``asession`` is rolled back.
        """
        if self._asession is None:
            return
        with self._engines.errors():
            async with self._asession as session:
                await session.run_sync(
                    lambda db: tracker.complete(db, self.model, self.fence, note=self._note)
                )
                await session.commit()
        self.completed = True

    def close(self) -> None:
        """Roll back what the body wrote in ``session``, if the attempt did not complete."""
        if self._session is not None:
            self._session.close()

    async def aclose(self) -> None:
        """Roll back what the body wrote in ``asession``, if the attempt did not complete."""
        if self._asession is not None:
            await self._asession.close()
