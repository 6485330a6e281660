"""Enqueues jobs in every way there is, during the storm, and remembers what it was told about each."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tasktrail import TasktrailError, TrackedTask
from tests.chaos.app import Tasks
from tests.chaos.arena import ACTIVE
from tests.chaos.plan import Order

Jobs = Iterable[dict[str, Any]]
ROOM: Final = 500
"""How many rows may wait or run when a job is ordered, so that a slow machine gets no more than it can do."""
LOOK: Final = 0.25
"""Time between two looks at how many there are, in seconds."""
PATIENCE: Final = 60.0
"""How long an order that is on its way may take, in seconds."""


class Producer:
    """Works the orders off when they are due; an order that failed is looked up and placed again.

    Attributes:
        ordered: rows for the table of that name.
        errors: the errors that orders met, by class and way.
    """

    def __init__(self, tasks: Tasks, orders: Iterable[Order]) -> None:
        self.tasks = tasks
        self.ordered: list[dict[str, Any]] = []
        self.errors: Counter[str] = Counter()
        self._orders = deque(orders)
        self._engines = tasks.trail.engines
        self._runner = asyncio.Runner()
        self._stop = threading.Event()
        self._looked = 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="chaos producer", daemon=True)

    @property
    def finished(self) -> bool:
        """Whether every order is placed, or none will be any more."""
        return not self._thread.is_alive()

    @property
    def left(self) -> int:
        """How many orders are not placed."""
        return len(self._orders)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop, whatever is left."""
        self._stop.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            self._place_all()
        except BaseException as error:
            self.failure = error
        finally:
            self._runner.run(self._engines.asynchronous.dispose())
            self._runner.close()

    def _place_all(self) -> None:
        start = time.monotonic()
        failed: deque[Order] = deque()
        again: set[int] = set()
        while self._orders or failed:
            due = self._orders[0].at if self._orders else 0.0
            if self._stop.wait(max(0.0, start + due - time.monotonic())) or not self._wait_for_room():
                return
            order = self._orders.popleft() if self._orders else failed.popleft()
            try:
                self._place(order, again=id(order) in again)
            except (TasktrailError, SQLAlchemyError) as error:
                self.errors[f"{type(error).__name__} at {order.how}"] += 1
                failed.append(order)
                again.add(id(order))
                self._stop.wait(0.1)
                continue
            if failed and self._orders:  # one of those that failed, between two others
                self._orders.appendleft(failed.popleft())

    def _wait_for_room(self) -> bool:
        """Return True when there is room for more rows, False when told to stop."""
        while time.monotonic() > self._looked + LOOK:
            try:
                with self._engines.pooled() as db:
                    active = db.scalar(text(ACTIVE))
            except TasktrailError:
                return True
            if active < ROOM:
                self._looked = time.monotonic()
                break
            if self._stop.wait(LOOK):
                return False
        return True

    def _place(self, order: Order, *, again: bool) -> None:
        task = self.tasks.of_domain[order.domain]
        jobs = list(order.jobs)
        if again and order.how != "after":
            there = self._there(task, [job["key"] for job in jobs])
            jobs = [job for job in jobs if job["key"] not in there]
            for key in there - self._known():
                self._note(task, key, None, order.how)
        if jobs:
            way: Callable[[TrackedTask[Any], list[dict[str, Any]]], None]
            way = getattr(self, f"_{order.how.replace(' ', '_')}")
            way(task, jobs)

    def _there(self, task: TrackedTask[Any], keys: Collection[str]) -> set[str]:
        """Look up which jobs were enqueued although the answer was lost."""
        table: Any = task.domain.model.__table__
        with self._engines.pooled() as db:
            return set(db.execute(select(table.c.key).where(table.c.key.in_(keys))).scalars())

    def _known(self) -> set[str]:
        return {entry["key"] for entry in self.ordered}

    def _note(
        self,
        task: TrackedTask[Any],
        key: str,
        tracking_id: int | None,
        how: str,
        outcome: str = "acknowledged",
        after: str | None = None,
    ) -> None:
        self.ordered.append(
            {
                "domain": task.domain.name,
                "key": key,
                "tracking_id": tracking_id,
                "how": how,
                "outcome": outcome,
                "after": after,
            }
        )

    def _enqueue(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        for job in jobs:
            self._note(task, job["key"], task.enqueue(**job).id, "enqueue")

    def _aenqueue(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        for job in jobs:
            self._note(task, job["key"], self._runner.run(task.aenqueue(**job)).id, "aenqueue")

    def _enqueue_many(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        task.enqueue_many(jobs, batch_size=10)
        for job in jobs:
            self._note(task, job["key"], None, "enqueue_many")

    def _session(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        with Session(self._engines.sync) as session:
            ids = [(job["key"], task.enqueue(session, **job).id) for job in jobs]
            session.commit()
        for key, tracking_id in ids:
            self._note(task, key, tracking_id, "session")

    def _asession(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        async def add() -> list[tuple[str, int]]:
            async with AsyncSession(self._engines.asynchronous) as session:
                ids = [(job["key"], (await task.aenqueue(session, **job)).id) for job in jobs]
                await session.commit()
                return ids

        for key, tracking_id in self._runner.run(add()):
            self._note(task, key, tracking_id, "asession")

    def _savepoint(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        kept, undone = [], []
        with Session(self._engines.sync) as session:
            for number, job in enumerate(jobs):
                savepoint = session.begin_nested()
                enqueued = (job["key"], task.enqueue(session, **job).id)
                if number % 2:
                    savepoint.rollback()
                    undone.append(enqueued)
                else:
                    savepoint.commit()
                    kept.append(enqueued)
            session.commit()
        for key, tracking_id in kept:
            self._note(task, key, tracking_id, "savepoint")
        for key, tracking_id in undone:
            self._note(task, key, tracking_id, "savepoint", "rolled back")

    def _rolled_back(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        with Session(self._engines.sync) as session:
            ids = [(job["key"], task.enqueue(session, **job).id) for job in jobs]
            session.rollback()
        for key, tracking_id in ids:
            self._note(task, key, tracking_id, "session", "rolled back")

    def _after(self, task: TrackedTask[Any], jobs: Jobs) -> None:
        """Enqueue two jobs, the second of which waits for the first, in the same domain or the other one."""
        first, second = jobs
        enqueued = task.enqueue(**first)
        if first["key"] not in self._known():
            self._note(task, first["key"], enqueued.id, "after")
        tasks = list(self.tasks.of_domain.values())
        other = tasks[int(second["key"][-1], 16) % len(tasks)]  # the same one when the order is repeated
        waiting = other.enqueue(after=[enqueued], **second)
        self._note(other, second["key"], waiting.id, "after", after=first["key"])
