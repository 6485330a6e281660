"""Carries out the blows of a plan on live servers and workers."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any, Final, TypeVar
from uuid import uuid4

import psutil
from kombu.exceptions import OperationalError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tasktrail import TrackingError, Unavailable
from tests.chaos.arena import Arena
from tests.chaos.cluster import Worker, pause, resume
from tests.chaos.plan import Blow, Strike, strikes

T = TypeVar("T")
TICK: Final = 0.05
LONG: Final = 0.5
"""A process that works on a job of so many seconds is preferred as a victim of a pause."""
LATEST: Final = 5.0
"""Longest delay of a doubled message, in seconds."""
PATIENCE: Final = 60.0
"""How long the last blow may take to be over, in seconds."""

IN_VAIN: Final = (Unavailable, SQLAlchemyError, OperationalError, OSError)
"""How a blow fails that was hit by another one."""

SOME_ROWS: Final = "SELECT domain, id, celery_task_id FROM chaos.row ORDER BY random() LIMIT :some"
ACTIVE_ROWS: Final = (
    "SELECT domain, id FROM chaos.row WHERE status IN ('PENDING', 'PROCESSING') ORDER BY random() LIMIT :some"
)
BUSY_WORKERS: Final = (
    "SELECT worker FROM chaos.row WHERE status = 'PROCESSING' AND worker IS NOT NULL AND seconds >= :seconds"
)


class Tormentor:
    """Strikes, and sees to it that workers which ended are replaced and processes which it stopped go on.

    Attributes:
        struck: rows for the table of that name.
        cancelled: rows for the table of that name.
        failures: what went wrong with the blows themselves.
    """

    def __init__(self, arena: Arena, random: Random) -> None:
        self.struck: list[dict[str, Any]] = []
        self.cancelled: list[dict[str, Any]] = []
        self.failures: list[BaseException] = []
        self._fleet = arena.field.fleet
        self._tasks = arena.field.tasks
        self._postgres = arena.postgres
        self._broker = arena.broker
        self._random = random
        self._numbers = count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._paused: list[psutil.Process] = []
        self._threads: list[threading.Thread] = []
        self._servers = {"broker": threading.Lock(), "postgres": threading.Lock()}
        self._start = time.monotonic()

    def storm(self, seconds: float, *, each: bool = True) -> None:
        """Strike by a plan for so many seconds, and wait until the last blow is over.

        Args:
            seconds: how long the storm lasts.
            each: whether each blow falls once at least.
        """
        lease = self._tasks.trail.settings.lease
        plan = strikes(self._random, seconds, lease, can_be_emptied=self._broker.can_be_emptied, each=each)
        self._start = time.monotonic()
        for strike in plan:
            self._at(strike.at, lambda strike=strike: self._strike(strike))
        try:
            while (now := self._now()) < seconds or self._due:
                self._fleet.muster()
                while self._due and self._due[0][0] <= now:
                    heapq.heappop(self._due)[2]()
                time.sleep(TICK)
        finally:
            for process in self._paused:
                resume(process)
            for thread in self._threads:
                thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads), "a blow is not over"
        self._fleet.muster()

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _at(self, when: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), action))

    def _strike(self, strike: Strike) -> None:
        match strike.blow:
            case Blow.KILL_CHILD | Blow.PAUSE_CHILD:
                self._strike_child(strike)
            case Blow.STOP_BROKER:
                self._aside(strike, self._broker.restart, "broker")
            case Blow.CRASH_BROKER:
                self._aside(strike, lambda: self._broker.restart(crash=True), "broker")
            case Blow.EMPTY_BROKER:
                self._aside(strike, lambda: self._broker.restart(crash=True, forget=True), "broker")
            case Blow.RESTART_POSTGRES:
                self._aside(strike, lambda: self._postgres.restart("fast"), "postgres")
            case Blow.CRASH_POSTGRES:
                self._aside(strike, lambda: self._postgres.restart("immediate"), "postgres")
            case Blow.DOUBLE_MESSAGES:
                self._aside(strike, self._double_messages)
            case Blow.CANCEL_ROWS:
                self._aside(strike, self._cancel_rows)
            case _:
                self._strike_worker(strike)

    def _strike_child(self, strike: Strike) -> None:
        children = [child for worker in self._serving() for child in worker.children()]
        is_pause = strike.blow is Blow.PAUSE_CHILD
        at_work = self._at_work(LONG if is_pause else 0.0) if is_pause or strike.pick < 0.5 else set()
        child = _picked([child for child in children if child.pid in at_work] or children, strike.pick)
        if child is None:
            return
        with suppress(psutil.NoSuchProcess):
            if is_pause:
                self._pause(child, strike.seconds)
            else:
                child.kill()
            self._note(strike, f"process {child.pid}{' at work' if child.pid in at_work else ''}")

    def _strike_worker(self, strike: Strike) -> None:
        worker = _picked(self._serving(), strike.pick)
        if worker is None:
            return
        match strike.blow:
            case Blow.KILL_WORKER:
                worker.kill(orphans=False)
            case Blow.ORPHAN_POOL:
                worker.kill(orphans=True)
                if self._random.random() < 0.5:
                    self._at(self._now() + strike.seconds, lambda: self._reap(worker))
            case Blow.PAUSE_WORKER:
                self._pause(psutil.Process(worker.process.pid), strike.seconds)
            case Blow.TERMINATE_WORKER:
                worker.terminate()
        self._note(strike, worker.name)

    def _serving(self) -> list[Worker]:
        return [worker for worker in self._fleet.workers if not worker.struck]

    def _reap(self, worker: Worker) -> None:
        for orphan in list(worker.family()):
            with suppress(psutil.NoSuchProcess):
                orphan.kill()

    def _pause(self, process: psutil.Process, seconds: float) -> None:
        pause(process)
        self._paused.append(process)
        self._at(self._now() + seconds, lambda: resume(process))

    def _at_work(self, seconds: float) -> set[int]:
        """Return the processes that work on jobs that take so long at least."""
        with suppress(Unavailable, SQLAlchemyError), self._tasks.trail.engines.pooled() as db:
            workers = db.execute(text(BUSY_WORKERS), {"seconds": seconds}).scalars()
            return {int(worker.rpartition("/")[2]) for worker in workers}
        return set()

    def _double_messages(self) -> str:
        with self._tasks.trail.engines.pooled() as db:
            rows = db.execute(text(SOME_ROWS), {"some": 10}).all()
        sent = 0
        for row in rows:
            task = self._tasks.of_domain[row.domain].celery_task
            for _ in range(self._random.randint(1, 3)):
                task_id = row.celery_task_id if self._random.random() < 0.5 else str(uuid4())
                late = self._random.choice([0.0, self._random.uniform(0.0, LATEST)])
                task.apply_async(args=(row.id,), task_id=task_id, countdown=late or None)
                sent += 1
        return f"{sent} copies of the messages of {len(rows)} rows"

    def _cancel_rows(self) -> str:
        with self._tasks.trail.engines.pooled() as db:
            rows = db.execute(text(ACTIVE_ROWS), {"some": self._random.randint(1, 4)}).all()
        for row in rows:
            outcome = "accepted"
            try:
                self._tasks.of_domain[row.domain].cancel(row.id, "chaos")
            except TrackingError:
                continue
            except Unavailable:
                outcome = "unknown"
            self.cancelled.append({"domain": row.domain, "tracking_id": row.id, "outcome": outcome})
        return f"{len(rows)} rows"

    def _aside(self, strike: Strike, action: Callable[[], object], server: str | None = None) -> None:
        """Do what takes long on a thread; each server is struck by one blow at a time."""

        def act() -> None:
            lock = self._servers[server] if server else threading.Lock()
            with lock:
                at = datetime.now(UTC)
                try:
                    detail = action()
                except IN_VAIN as error:
                    detail = f"in vain: {type(error).__name__}"
                except Exception as error:
                    self.failures.append(error)
                    detail = f"failed: {error!r}"
                self._note(strike, str(detail or ""), at)

        thread = threading.Thread(target=act, name=f"chaos: {strike.blow}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _note(self, strike: Strike, detail: str, at: datetime | None = None) -> None:
        now = datetime.now(UTC)
        self.struck.append({"blow": strike.blow.value, "detail": detail, "at": at or now, "until": now})


def _picked(candidates: list[T], pick: float) -> T | None:
    return candidates[int(pick * len(candidates))] if candidates else None
