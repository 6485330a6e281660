"""One message in a worker: claim the row, run the body, complete or fail the row."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeAlias

from celery import Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.exceptions import Retry as CeleryRetry

from tasktrail import tracker
from tasktrail.celery.loop import ProcessLoop
from tasktrail.celery.publish import Message, Publisher
from tasktrail.celery.run import Run
from tasktrail.engines import Engines
from tasktrail.errors import FencedOut, NotDue, TrackingNotFound, WrongState, describe
from tasktrail.registry import Domain
from tasktrail.retry import Decision, Retry
from tasktrail.tracker import Claim, Outcome

logger = logging.getLogger(__name__)

Body: TypeAlias = Callable[[Run[Any]], Any]


@dataclass(frozen=True, slots=True)
class Execution:
    """How the messages of one domain are worked on.

    Attributes:
        domain: the domain.
        body: the function that does the work.
        engines: the process's database engines.
        publisher: sends the message of a retry.
        loop: runs bodies that are coroutines.
        eta_horizon: longest delay, in seconds, that goes out as an ETA message.
    """

    domain: Domain
    body: Body
    engines: Engines
    publisher: Publisher
    eta_horizon: float
    loop: ProcessLoop = field(default_factory=ProcessLoop)

    def __call__(self, task: Task[Any, Any], tracking_id: int) -> Any:
        """Work on one message.

        Args:
            task: the bound Celery task.
            tracking_id: the row the message is about.

        Returns:
            What the body returned.

        Raises:
            celery.exceptions.Ignore: the message is a duplicate, late or early; nothing ran.
            celery.exceptions.Retry: the attempt failed and will be repeated.
            BaseException: what the body raised, when the row is FAILED.
        """
        claim = self._claim(task, tracking_id)
        run: Run[Any] = Run(self.domain.model, claim, self.engines)
        try:
            result = self._run(run)
            run.complete()
        except FencedOut as error:
            logger.warning("%s", error)
            raise Ignore(str(error)) from error
        except CeleryRetry as error:
            self._fail(task, claim, error, Retry(_seconds_until(error.when)))
        except Exception as error:  # noqa: BLE001  # whatever the body raises is recorded in the row
            self._fail(task, claim, error, self._decide(claim, error))
        except BaseException:
            self._release(claim)  # the process is told to stop, which is not the attempt's fault
            raise
        finally:
            run.close()
        return result

    def _claim(self, task: Task[Any, Any], tracking_id: int) -> Claim:
        celery_task_id = task.request.id
        worker = task.request.hostname
        try:
            with self.engines.kept("relaxed") as db:
                return tracker.claim(
                    db, self.domain.model, tracking_id, celery_task_id=celery_task_id, worker=worker
                )
        except (NotDue, TrackingNotFound, WrongState) as reason:
            if (
                isinstance(reason, NotDue)
                and reason.seconds is not None
                and reason.seconds <= self.eta_horizon
            ):
                self.publisher.send([self._message(task, tracking_id, max(reason.seconds, 0.01))])
            logger.info("message dropped: %s", reason)
            raise Ignore(str(reason)) from reason

    def _run(self, run: Run[Any]) -> Any:
        if inspect.iscoroutinefunction(self.body):
            return self.loop.run(self._arun(run))
        return self.body(run)

    async def _arun(self, run: Run[Any]) -> Any:
        try:
            result = await self.body(run)
            await run.complete_in_asession()
        finally:
            await run.aclose()
        return result

    def _decide(self, claim: Claim, error: Exception) -> Decision:
        return self.domain.policy.decide(
            error,
            failures=claim.fence.attempts + 1,
            max_attempts=claim.max_attempts,
            now=datetime.now(UTC),
            random=random.random,
        )

    def _fail(self, task: Task[Any, Any], claim: Claim, error: Exception, decision: Decision) -> NoReturn:
        outcome: Outcome = "timeout" if isinstance(error, SoftTimeLimitExceeded) else "error"
        try:
            with self.engines.kept() as db:
                tracker.fail(
                    db, self.domain.model, claim.fence, decision, error=describe(error), outcome=outcome
                )
        except FencedOut as stale:
            logger.warning("%s", stale)
            raise Ignore(str(stale)) from error
        if isinstance(error, CeleryRetry) or not isinstance(decision, Retry):
            raise error
        if decision.seconds <= self.eta_horizon:
            retries = (task.request.retries or 0) + 1
            self.publisher.send([self._message(task, claim.fence.tracking_id, decision.seconds, retries)])
        when = datetime.now(UTC) + timedelta(seconds=decision.seconds)
        raise CeleryRetry(exc=error, when=when) from error

    def _release(self, claim: Claim) -> None:
        try:
            with self.engines.kept() as db:
                tracker.release(db, self.domain.model, claim.fence)
        except FencedOut as stale:
            logger.warning("%s", stale)

    def _message(
        self, task: Task[Any, Any], tracking_id: int, countdown: float, retries: int | None = None
    ) -> Message:
        if retries is None:
            retries = task.request.retries or 0
        return Message(self.domain.model, task, tracking_id, task.request.id, countdown, retries)


def _seconds_until(when: object) -> float:
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    return max(0.0, float(when)) if isinstance(when, int | float) else 0.0
