"""The async service of a domain, which commits, and the utilities of the seed API (DESIGN section 5)."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

from celery import Task
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tasktrail import tracker
from tasktrail.errors import ConfigurationError, InvalidField, describe
from tasktrail.fields import refused_value
from tasktrail.models import BaseTaskTracking
from tasktrail.retry import Retry, RetryPolicy
from tasktrail.states import Status
from tasktrail.tracker import OnDuplicate

ModelT = TypeVar("ModelT", bound=BaseTaskTracking)
ResultT = TypeVar("ResultT")

SEED_POLICY = RetryPolicy()
"""60 s * 2**retries (DESIGN section 5)."""


class BaseTaskTrackingService(Generic[ModelT]):
    """Operations on the tracking rows of one domain, each in a transaction of its own.

    A domain's service names its model once and adds what is particular to it::

        class ReportTrackingService(BaseTaskTrackingService[ReportTracking]):
            model = ReportTracking

    Without a subclass, pass the model: ``BaseTaskTrackingService(db, ReportTracking)``.

    Attributes:
        db: the session; writes commit it, so do not share it with work of your own that is not to be
            committed. Inside a transaction of your own use ``tasktrail.tracker`` with ``db.run_sync``.
        model: the domain's model.
        schema: where the library's own tables are; unless it is set, where the model's table is.
    """

    model: ClassVar[type[BaseTaskTracking]]
    schema: ClassVar[str | None] = None

    def __init__(self, db: AsyncSession, model: type[ModelT] | None = None) -> None:
        self.db = db
        chosen = model or getattr(type(self), "model", None)
        if chosen is None:
            raise ConfigurationError(f"{type(self).__name__} has no model: pass one, or set it on the class")
        self._model: type[ModelT] = chosen

    async def create_tracking(self, *, on_duplicate: OnDuplicate = "error", **fields: Any) -> int:
        """Add a PENDING row.

        Args:
            on_duplicate: what to do when the natural key is taken, as in ``tracker.create``.
            **fields: domain columns, and ``max_attempts``, ``next_attempt_at`` or ``celery_task_id``.

        Returns:
            The row's id.

        Raises:
            InvalidField: a field is not acceptable; there is no new row.
            DuplicateTracking: the natural key is taken and ``on_duplicate`` is ``"error"``.
        """
        added = await self._write(
            lambda db: tracker.create(db, self._model, fields, on_duplicate=on_duplicate)
        )
        return added.id

    async def update_status(
        self, tracking_id: int, status: Status | str, error_message: str | None = None
    ) -> None:
        """Take a row to another state.

        A row that moves to PENDING is due at once, or once its prerequisites are met; maintenance sends it.

        Args:
            tracking_id: the row.
            status: the state to reach; a name is read without regard to case.
            error_message: what went wrong, or why it was cancelled.

        Raises:
            InvalidField: there is no such state.
            TrackingNotFound: there is no such row.
            WrongState: no transition leads there from the row's state.
        """
        target = _status(status)
        schema = type(self).schema
        await self._write(
            lambda db: tracker.move(db, self._model, tracking_id, target, error_message, schema=schema)
        )

    async def get_tracking(self, tracking_id: int) -> ModelT:
        """Return a detached snapshot of a row.

        Raises:
            TrackingNotFound: there is no such row.
        """
        return await self.db.run_sync(lambda db: tracker.get(db, self._model, tracking_id))

    async def get_by_status(self, status: Status | str, *, limit: int | None = None) -> list[ModelT]:
        """Return detached snapshots of the rows in a state, oldest first.

        Args:
            status: the state; a name is read without regard to case.
            limit: how many rows at most; ``None`` for all.

        Raises:
            InvalidField: there is no such state.
        """
        wanted = _status(status)
        return await self.db.run_sync(lambda db: tracker.by_status(db, self._model, [wanted], limit=limit))

    async def get_active_tasks(self, *, limit: int | None = None) -> list[ModelT]:
        """Return detached snapshots of the rows whose work is not finished, oldest first."""
        return await self.db.run_sync(lambda db: tracker.active(db, self._model, limit=limit))

    async def fail_attempt(
        self,
        tracking_id: int,
        error: BaseException,
        *,
        policy: RetryPolicy = SEED_POLICY,
    ) -> float | None:
        """Count and record a failed attempt of a PROCESSING row.

        Args:
            tracking_id: the row.
            error: what the attempt raised; stored as "Class: message".
            policy: decides whether and when the attempt is repeated.

        Returns:
            Seconds until the next attempt; ``None`` when the row is FAILED.

        Raises:
            TrackingNotFound: there is no such row.
            WrongState: it is not PROCESSING.
            FencedOut: another attempt took the row over in between.
        """

        def write(db: Session) -> float | None:
            fence, max_attempts = tracker.fence(db, self._model, tracking_id, "fail")
            decision = policy.decide(
                error,
                failures=fence.attempts + 1,
                max_attempts=max_attempts,
                now=datetime.now(UTC),
                random=random.random,
            )
            tracker.fail(db, self._model, fence, decision, error=describe(error))
            return decision.seconds if isinstance(decision, Retry) else None

        return await self._write(write)

    async def _write(self, operation: Callable[[Session], ResultT]) -> ResultT:
        try:
            result = await self.db.run_sync(operation)
            await self.db.commit()
        except IntegrityError as error:
            await self.db.rollback()
            raise refused_value(error) from error
        except BaseException:
            await self.db.rollback()
            raise
        return result


async def update_task_status(
    tracking_id: int,
    status: Status | str,
    service: BaseTaskTrackingService[Any],
    error_message: str | None = None,
) -> None:
    """Take a row to another state; see ``BaseTaskTrackingService.update_status``."""
    await service.update_status(tracking_id, status, error_message)


async def handle_task_error(
    task: Task[Any, Any],
    tracking_id: int,
    error: BaseException,
    service: BaseTaskTrackingService[Any],
) -> NoReturn:
    """Record a failed attempt and repeat it through Celery while attempts are left.

    The delay is 60 s * 2**retries (DESIGN section 5). With ``max_attempts`` 3 the countdowns are 60 and
    120 s, and the third failure leaves the row FAILED.

    Args:
        task: the bound Celery task.
        tracking_id: its row, PROCESSING.
        error: what the attempt raised; stored as "Class: message".
        service: the row's service.

    Raises:
        celery.exceptions.Retry: the attempt will be repeated.
        BaseException: ``error`` itself, when the row is FAILED.
        TrackingError: the row is not there, not PROCESSING, or taken over.
    """
    seconds = await service.fail_attempt(tracking_id, error)
    if seconds is None:
        raise error
    retry_with_backoff(task, error, seconds=seconds)


def retry_with_backoff(
    task: Task[Any, Any],
    error: BaseException,
    *,
    policy: RetryPolicy = SEED_POLICY,
    seconds: float | None = None,
) -> NoReturn:
    """Have Celery repeat a task after an exponential delay.

    How often is not Celery's to say: the row counts the attempts.

    Args:
        task: the bound Celery task.
        error: why it is repeated.
        policy: gives the delay, for the retries Celery has made of this task.
        seconds: the delay, where it is decided already.

    Raises:
        celery.exceptions.Retry: always.
    """
    countdown = policy.delay(task.request.retries or 0) if seconds is None else seconds
    reason = error if isinstance(error, Exception) else RuntimeError(describe(error))
    raise task.retry(exc=reason, countdown=countdown, max_retries=sys.maxsize, throw=False)


def _status(name: Status | str) -> Status:
    try:
        return Status(str(name).upper())
    except ValueError:
        raise InvalidField("status", name, f"is none of {', '.join(Status)}") from None
