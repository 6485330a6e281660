"""Records what the main process of a worker learns about its children: lost, timed out, revoked, cancelled.

It happens on a thread of its own: the main process must not wait for a database.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from celery import Task
from sqlalchemy.exc import SQLAlchemyError

from tasktrail import tracker
from tasktrail.celery.messages import Message
from tasktrail.celery.publish import Publisher
from tasktrail.engines import Engines
from tasktrail.errors import DatabaseUnavailable, TimeLimit, TrackingError, WorkerLost
from tasktrail.registry import Domain
from tasktrail.retry import Retry

logger = logging.getLogger(__name__)

What: TypeAlias = Literal["lost", "timeout", "cancelled", "released"]


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of one attempt, as seen from outside.

    Attributes:
        domain: the row's domain.
        task: its Celery task.
        tracking_id: the row.
        celery_task_id: the Celery task that claimed it.
        worker: the process that had it; ``None`` if none had taken it yet.
        what: what happened.
        reason: a sentence for people.
    """

    domain: Domain
    task: Task[Any, Any]
    tracking_id: int
    celery_task_id: str
    worker: str | None
    what: What
    reason: str


class LossRecorder:
    """Writes losses to their rows, each under the fence of the attempt it is about."""

    def __init__(
        self, engines: Engines, publisher: Publisher, *, eta_horizon: float, patience: float
    ) -> None:
        """Remember how; the thread starts with the first loss.

        Args:
            engines: the process's database engines.
            publisher: sends the message of the next attempt.
            eta_horizon: longest delay, in seconds, that goes out as an ETA message.
            patience: how long a loss is kept while the database is away, in seconds; after that the lease
                tells.
        """
        self._engines = engines
        self._publisher = publisher
        self._eta_horizon = eta_horizon
        self._patience = patience
        self._losses: queue.SimpleQueue[Loss | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, loss: Loss) -> None:
        """Have a loss recorded soon."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tasktrail losses", daemon=True)
            self._thread.start()
        self._losses.put(loss)

    def close(self, timeout: float) -> None:
        """Record what is left, and end the thread.

        Args:
            timeout: how long that may take, in seconds.
        """
        if self._thread is not None:
            self._losses.put(None)
            self._thread.join(timeout)
            self._thread = None

    def record(self, loss: Loss) -> None:
        """Write one loss to its row; a row that is no longer that attempt's is left alone.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        model = loss.domain.model
        seconds: float | None = None
        with self._engines.pooled() as db:
            try:
                if loss.what == "cancelled":
                    row = tracker.get(db, model, loss.tracking_id)
                    if row.celery_task_id == loss.celery_task_id:  # else it goes on under another id
                        tracker.cancel(db, model, loss.tracking_id, loss.reason)
                    return
                fence, max_attempts = tracker.fence(
                    db,
                    model,
                    loss.tracking_id,
                    loss.what,
                    worker=loss.worker,
                    celery_task_id=loss.celery_task_id,
                )
                if loss.what == "released":
                    tracker.release(db, model, fence)
                    seconds = 0.0
                else:
                    seconds = self._fail(db, loss, fence, max_attempts)
            except TrackingError as reason:
                logger.debug("nothing to record: %s", reason)
                return
        if seconds is not None and seconds <= self._eta_horizon:
            message = Message(model, loss.task, loss.tracking_id, loss.celery_task_id, seconds)
            self._publisher.send([message])

    def _fail(
        self, db: tracker.Database, loss: Loss, fence: tracker.Fence, max_attempts: int
    ) -> float | None:
        error = TimeLimit(loss.reason) if loss.what == "timeout" else WorkerLost(loss.reason)
        decision = loss.domain.policy.decide(
            error,
            failures=fence.attempts + 1,
            max_attempts=max_attempts,
            now=datetime.now(UTC),
            random=random.random,
        )
        outcome: tracker.Outcome = "timeout" if loss.what == "timeout" else "lost"
        text = f"{type(error).__name__}: {loss.reason}"
        tracker.fail(db, loss.domain.model, fence, decision, error=text, outcome=outcome)
        return decision.seconds if isinstance(decision, Retry) else None

    def _work(self) -> None:
        while (loss := self._losses.get()) is not None:
            deadline = time.monotonic() + self._patience
            while True:
                try:
                    self.record(loss)
                except (DatabaseUnavailable, SQLAlchemyError) as error:
                    if time.monotonic() > deadline:
                        logger.warning("a loss is left to the lease: %s: %s", loss, error)
                        break
                    time.sleep(0.2)
                except (
                    Exception
                ):  # the thread must outlive whatever it meets, or no loss is recorded any more
                    logger.exception("a loss is left to the lease: %s", loss)
                    break
                else:
                    break
