"""One message in a worker: claim the row, run the body, complete or fail the row."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, TypeAlias

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined]  # new in 4.3
from celery import Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded, WorkerShutdown, WorkerTerminate
from celery.exceptions import Retry as CeleryRetry

from tasktrail import tracker
from tasktrail.celery.completions import Completions, is_awaited
from tasktrail.celery.heartbeat import Heartbeats
from tasktrail.celery.loop import ProcessLoop
from tasktrail.celery.messages import Message
from tasktrail.celery.persistence import Persistence
from tasktrail.celery.publish import Publisher
from tasktrail.celery.run import Run
from tasktrail.celery.tracing import Tracer
from tasktrail.engines import Engines
from tasktrail.errors import (
    DatabaseUnavailable,
    FencedOut,
    NotDue,
    TrackingNotFound,
    WaitFor,
    WrongState,
    describe,
)
from tasktrail.registry import Domain, Registry
from tasktrail.retry import Decision, Retry
from tasktrail.tracker import Claim, Database, Outcome

logger = logging.getLogger(__name__)

Body: TypeAlias = Callable[[Run[Any]], Any]

ON_THE_WAY: Final = 1.0
"""How much longer one statement may take to the server than another, in seconds."""


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all executions of a worker process share.

    Attributes:
        registry: the domains.
        engines: the process's database engines.
        publisher: sends the message of a retry.
        heartbeats: renews the leases of running rows.
        loop: runs bodies that are coroutines.
        schema: where the library's own tables are.
        persistence: writes to rows while the database may be away.
        completions: the rows whose completion is under way.
        eta_horizon: longest delay, in seconds, that goes out as an ETA message.
        tracer: is told of attempts.
    """

    registry: Registry
    engines: Engines
    publisher: Publisher
    heartbeats: Heartbeats
    loop: ProcessLoop
    schema: str | None
    persistence: Persistence
    completions: Completions
    eta_horizon: float
    tracer: Tracer


def worker_name(hostname: str | None, pid: int) -> str:
    """Return how a worker process is named in the rows it works on."""
    return f"{hostname}/{pid}"


@dataclass(frozen=True, slots=True)
class Execution:
    """How the messages of one domain are worked on.

    Attributes:
        domain: the domain.
        body: the function that does the work.
        parts: what all executions of the process share.
    """

    domain: Domain
    body: Body
    parts: WorkerParts

    def __call__(self, task: Task[Any, Any], tracking_id: int) -> Any:
        """Work on one message.

        Args:
            task: the bound Celery task.
            tracking_id: the row the message is about.

        Returns:
            What the body returned.

        Raises:
            celery.exceptions.Ignore: the message is a duplicate, late or early, and nothing ran; or the
                attempt was superseded, and nothing it did counts.
            celery.exceptions.Reject: the database stayed away, or the worker is stopping; the message is put
                back.
            celery.exceptions.Retry: the attempt failed and will be repeated.
            Exception: what the body raised, when the row is FAILED.
        """
        claim = self._claim(task, tracking_id)
        parts = self.parts
        run: Run[Any] = Run(self.domain.model, claim, parts.engines, parts.registry, parts.schema)
        try:
            is_taken = parts.heartbeats.add(run)
        except FencedOut as double:
            raise Ignore(str(double)) from double
        if not is_taken:
            self._release(run)
            raise Reject("the worker was shut down", requeue=True)
        is_under_way = False
        try:
            with parts.tracer.attempt(run, str(task.request.id), self._headers(task)):
                result, is_under_way = self._attempt(task, run)
        finally:
            if not is_under_way:
                parts.heartbeats.remove(run)
            run.close()
        return result

    def _headers(self, task: Task[Any, Any]) -> dict[str, Any]:
        """Return the tracer's headers; in a worker Celery makes them attributes of the request."""
        eager = task.request.headers or {}
        found = {name: task.request.get(name, eager.get(name)) for name in self.parts.tracer.headers}
        return {name: value for name, value in found.items() if value is not None}

    def _attempt(self, task: Task[Any, Any], run: Run[Any]) -> tuple[Any, bool]:
        """Run the body and end the row; return what the body returned, and what ``_complete`` does."""
        try:
            result = self._run(run)
            return result, self._complete(task, run)
        except FencedOut as stale:
            self._give_way(stale)
        except WaitFor as wait:
            if not run.is_held:
                self.parts.publisher.send([self._message(task, run.id, 0.0)])
            raise Ignore(str(wait)) from wait
        except CeleryRetry as asked:
            reason = asked.exc if isinstance(asked.exc, Exception) else asked
            decision = self._decide(run, reason, asked=_seconds_until(asked.when))
            self._fail(task, run, asked if isinstance(decision, Retry) else reason, decision)
        except asyncio.CancelledError as error:
            if run.cancelled:
                raise Ignore(str(self._stopped(run))) from error
            self._fail(task, run, error, self._decide(run, error))
        except (WorkerShutdown, WorkerTerminate):
            self._release(run)  # this process is told to stop, which is not the attempt's fault
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the body raises is recorded in the row
            self._fail(task, run, error, self._decide(run, error))

    def _claim(self, task: Task[Any, Any], tracking_id: int) -> Claim:
        model = self.domain.model
        celery_task_id = task.request.id
        worker = worker_name(task.request.hostname, os.getpid())
        tries: list[float] = []

        def write(db: Database) -> Claim:
            tries.append(time.monotonic())
            try:
                return tracker.claim(db, model, tracking_id, celery_task_id=celery_task_id, worker=worker)
            except WrongState:
                if len(tries) == 1:
                    raise
                # An earlier try may have been committed, and only its answer been lost.
                age = time.monotonic() - tries[0] + ON_THE_WAY
                ours = tracker.claimed_within(
                    db, model, tracking_id, age, celery_task_id=celery_task_id, worker=worker
                )
                if ours is None:
                    raise
                return ours

        try:
            return self.parts.persistence.write(write, "relaxed")
        except DatabaseUnavailable as error:
            logger.warning("message put back: %s", error)
            raise Reject(str(error), requeue=True) from error
        except (NotDue, TrackingNotFound, WrongState) as reason:
            early = reason.seconds if isinstance(reason, NotDue) else None
            if early is not None and early <= self.parts.eta_horizon:
                self.parts.publisher.send([self._message(task, tracking_id, max(early, 0.01))])
            logger.info("message dropped: %s", reason)
            raise Ignore(str(reason)) from reason

    def _run(self, run: Run[Any]) -> Any:
        try:
            if inspect.iscoroutinefunction(self.body):
                return self.parts.loop.run(self._arun(run), on_start=run.on_stop)
            return self.body(run)
        except WaitFor as wait:
            run.defer(wait)  # if that is refused or fails, the attempt failed like any other
            raise

    async def _arun(self, run: Run[Any]) -> Any:
        try:
            result = await self.body(run)
            await run.complete_in_asession()
        except WaitFor as wait:
            await run.defer_in_asession(wait)
            raise
        finally:
            await run.aclose()
        return result

    def _complete(self, task: Task[Any, Any], run: Run[Any]) -> bool:
        """Complete the row; return whether that is only under way."""
        parts = self.parts
        if run.uses_session:
            with parts.engines.kept() as db:
                run.complete(db)
            return False
        if not is_awaited(task) and parts.completions.begin(run):
            return True
        parts.persistence.complete(run)
        return False

    def _decide(self, run: Run[Any], error: BaseException, asked: float | None = None) -> Decision:
        return self.domain.policy.decide(
            error,
            failures=run.number,
            max_attempts=run.max_attempts,
            now=datetime.now(UTC),
            random=random.random,
            asked=asked,
        )

    def _fail(
        self, task: Task[Any, Any], run: Run[Any], error: BaseException, decision: Decision
    ) -> NoReturn:
        if terminate_handler_fired():
            raise error  # the main process has this process ended; it knows why, and records it
        run.close()
        model, fence = self.domain.model, run.fence
        outcome: Outcome = "timeout" if isinstance(error, SoftTimeLimitExceeded) else "error"
        text = describe(error)
        try:
            self.parts.persistence.write(
                lambda db: tracker.fail(db, model, fence, decision, error=text, outcome=outcome)
            )
        except FencedOut as stale:
            if self.parts.persistence.was_completed(run):
                raise Ignore(f"{run!r} completed before its connection was lost") from error
            if not self.parts.persistence.was_failed(run, text, outcome):
                self._give_way(stale)
        if isinstance(error, CeleryRetry) and isinstance(decision, Retry):
            raise error  # its message is on its way
        reason = _for_celery(error, text)
        if not isinstance(decision, Retry):
            if reason is error:
                raise error
            raise reason from error
        if decision.seconds <= self.parts.eta_horizon:
            retries = (task.request.retries or 0) + 1
            self.parts.publisher.send([self._message(task, run.id, decision.seconds, retries)])
        when = datetime.now(UTC) + timedelta(seconds=decision.seconds)
        raise CeleryRetry(exc=reason, when=when) from error

    def _stopped(self, run: Run[Any]) -> FencedOut:
        status = self.parts.persistence.write(lambda db: tracker.get(db, self.domain.model, run.id)).status
        return FencedOut(self.domain.name, run.id, "attempt", status)

    def _give_way(self, stale: FencedOut) -> NoReturn:
        self.parts.persistence.note_stale(stale)
        raise Ignore(str(stale)) from stale

    def _release(self, run: Run[Any]) -> None:
        run.close()
        try:
            with self.parts.engines.kept() as db:
                tracker.release(db, self.domain.model, run.fence)
        except (FencedOut, TrackingNotFound, DatabaseUnavailable) as reason:
            logger.warning("the row was not given back: %s", reason)

    def _message(
        self, task: Task[Any, Any], tracking_id: int, countdown: float, retries: int | None = None
    ) -> Message:
        if retries is None:
            retries = task.request.retries or 0
        return Message(self.domain.model, task, tracking_id, task.request.id, countdown, retries)


def _for_celery(error: BaseException, text: str) -> Exception:
    """Return what Celery may see of an error.

    A ``SystemExit`` would end the process, a ``MemoryError`` the worker; Celery's ``Retry`` is no failure.
    """
    if isinstance(error, Exception) and not isinstance(error, MemoryError | CeleryRetry):
        return error
    return RuntimeError(text)


def _seconds_until(when: object) -> float:
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    return max(0.0, float(when)) if isinstance(when, int | float) else 0.0
