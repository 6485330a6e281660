"""Tracked tasks without a worker: what an application and its operators do, and what is then on the queue."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import count
from typing import Any

from celery import Celery
from redis import Redis
from sqlalchemy import Engine, create_engine

from tasktrail import (
    Enqueued,
    RetryPolicy,
    Settings,
    Status,
    TrackedTask,
    TrackingRef,
    Trail,
    tracker,
)
from tasktrail.maintenance import Done
from tasktrail.prerequisites import Reference
from tasktrail.retry import NoRetry
from tasktrail.settings import sqlalchemy_url
from tests.rows import columns
from tests.support import (
    SCHEMA,
    AsyncJobTracking,
    AsyncJobTrackingService,
    JobTracking,
    JobTrackingService,
    OrderTracking,
    OrderTrackingService,
)

_days = count(date(2000, 1, 1).toordinal())


@dataclass(frozen=True)
class Sent:
    """A message on the queue."""

    task: str
    row_id: int
    celery_task_id: str
    has_eta: bool


class Desk:
    """The tasks of the three domains, with their rows and messages."""

    def __init__(self, trail: Trail, engine: Engine, queue: Redis, policy: RetryPolicy) -> None:
        self.trail = trail
        self.engine = engine
        self._queue = queue
        self.job: TrackedTask[JobTracking] = trail.task(JobTrackingService, name="job", retry=policy)(_never)
        self.async_job: TrackedTask[AsyncJobTracking] = trail.task(
            AsyncJobTrackingService, name="async_job", retry=policy
        )(_never)
        self.order: TrackedTask[OrderTracking] = trail.task(OrderTrackingService, name="order", retry=policy)(
            _never
        )
        self._maintenance = trail.maintenance()

    def tick(self) -> Done:
        """Do a round of maintenance."""
        with self.trail.engines.pooled() as db:
            return self._maintenance.tick(db)

    def prune(self) -> int:
        """Do a round of pruning; return how many rows went."""
        return self._maintenance.prune()

    def sent(self) -> list[Sent]:
        """Take the messages off the queue, oldest first."""
        name = self.trail.app.conf.task_default_queue
        taken = []
        while (raw := self._queue.rpop(name)) is not None:
            message: dict[str, Any] = json.loads(raw)  # type: ignore[arg-type]
            headers = message["headers"]
            args, _, _ = json.loads(b64decode(message["body"]))
            taken.append(Sent(headers["task"], args[0], headers["id"], headers["eta"] is not None))
        return taken

    def sent_ids(self) -> list[int]:
        """Take the messages off the queue, and return the rows they are about."""
        return [message.row_id for message in self.sent()]

    def row(self, ref: Reference) -> dict[str, Any]:
        """Return every column of a row."""
        return columns(self.engine, ref.id, self.trail.registry.get(ref.domain).model)

    def status(self, ref: Reference) -> Status:
        """Return the state of a row."""
        return Status(self.row(ref)["status"])

    def is_held(self, ref: Reference) -> bool:
        """Say whether a row waits without a due time."""
        row = self.row(ref)
        return row["status"] == Status.PENDING and row["next_attempt_at"] is None

    def claim(self, ref: Reference) -> tracker.Fence:
        """Claim a row as a worker would."""
        row = self.row(ref)
        with self.engine.begin() as db:
            model = self.trail.registry.get(ref.domain).model
            task = row["celery_task_id"]
            return tracker.claim(db, model, ref.id, celery_task_id=task, worker="w1").fence

    def complete(self, *refs: Reference) -> None:
        """Run rows to their good end."""
        for ref in refs:
            fence = self.claim(ref)
            with self.engine.begin() as db:
                tracker.complete(db, self.trail.registry.get(ref.domain).model, fence)

    def fail(self, *refs: Reference) -> None:
        """Run rows to a bad end."""
        for ref in refs:
            fence = self.claim(ref)
            with self.engine.begin() as db:
                model = self.trail.registry.get(ref.domain).model
                tracker.fail(db, model, fence, NoRetry("no"), error="ValueError: no")

    def order_fields(self, **fields: Any) -> dict[str, Any]:
        """Return the fields of an order that is not there yet."""
        return {"day": date.fromordinal(next(_days)), "currency": "EUR", **fields}


@contextmanager
def desk(database_url: str, redis_url: str, queue: str, policy: RetryPolicy | None = None) -> Iterator[Desk]:
    """Open a desk on a database and a queue of its own."""
    app = Celery("desk")
    app.conf.update(task_default_queue=queue)
    settings = Settings.load(database_url=database_url, broker_url=redis_url)
    trail = Trail(app, settings, schema=SCHEMA)
    engine = create_engine(sqlalchemy_url(database_url), pool_size=20)
    redis = Redis(unix_socket_path=redis_url.removeprefix("redis+socket://"))
    try:
        yield Desk(trail, engine, redis, policy or RetryPolicy())
    finally:
        redis.close()
        engine.dispose()
        trail.engines.dispose()
        app.close()


def ref(row: Enqueued) -> TrackingRef:
    """Return the reference to a row that was enqueued."""
    return TrackingRef(row.domain, row.id)


def _never(_: Any) -> None:
    raise AssertionError("no worker runs here")
