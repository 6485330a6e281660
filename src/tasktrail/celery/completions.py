"""Completes rows without waiting for the server's disk: its answer is read a moment later.

Celery hands a process its next job while the last one's completion is committed. Nothing rests on the wait:
a row whose completion is not committed is PROCESSING, and when its lease runs out it is rescued.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded

from tasktrail.celery.heartbeat import Heartbeats
from tasktrail.celery.persistence import Persistence
from tasktrail.celery.run import Run
from tasktrail.engines import Engines
from tasktrail.errors import DatabaseUnavailable, FencedOut
from tasktrail.sending import Sent

logger = logging.getLogger(__name__)

TICK: Final = 0.5
"""How long an idle process leaves an answer unread, in seconds; a busy one reads it with its next job."""


@dataclass(slots=True)
class Completion:
    """A completion that was sent.

    Attributes:
        run: the attempt.
        sent: what was sent.
        thread: who sent it.
        at: when, by ``time.monotonic``.
        is_settled: whether its answer was read and dealt with.
        lock: held while it is dealt with.
    """

    run: Run[Any]
    sent: Sent
    thread: int = field(default_factory=threading.get_ident)
    at: float = field(default_factory=time.monotonic)
    is_settled: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Completions:
    """The completions of this process whose answers are not read yet, at most one for each thread."""

    def __init__(self, engines: Engines, heartbeats: Heartbeats, persistence: Persistence) -> None:
        """Remember how; a thread starts with the first completion.

        Args:
            engines: the process's database engines.
            heartbeats: renews the lease of a row until its completion is settled.
            persistence: completes a row whose completion got lost.
        """
        self._engines = engines
        self._heartbeats = heartbeats
        self._persistence = persistence
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._unread: dict[int, Completion] = {}
        self._any = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, run: Run[Any]) -> bool:
        """Send a row's completion.

        Args:
            run: the attempt, whose body has ended and used no session. Its lease is renewed until the
                completion is settled.

        Returns:
            Whether it was sent; else the database cannot be reached, and nothing has happened.
        """
        self._settle_own()
        statement, parameters = run.completion()
        try:
            with self._engines.sender() as sender:
                completion = Completion(run, sender.send(statement, parameters))
        except DatabaseUnavailable:
            return False
        with self._lock:
            self._unread[completion.thread] = completion
            if self._thread is None:
                atexit.register(self.close)
                self._thread = threading.Thread(target=self._work, name="tasktrail completions", daemon=True)
                self._thread.start()
        self._any.set()
        return True

    def close(self) -> None:
        """Settle what there is, before the process ends."""
        for completion in self._all():
            self._settle(completion)

    def _settle_own(self) -> None:
        if self._pid != os.getpid():
            self._forget()
        completion = self._unread.get(threading.get_ident())
        if completion is not None:
            self._settle(completion)

    def _settle(self, completion: Completion) -> None:
        with completion.lock:
            if completion.is_settled:
                return
            run = completion.run
            try:
                self._conclude(run, completion.sent)
            except FencedOut as stale:
                self._persistence.note_stale(stale)
            except DatabaseUnavailable as error:
                logger.warning("%r is left to its lease: %s", run, error)
            except SoftTimeLimitExceeded:
                raise  # meant for the job at hand; this one is settled later
            except Exception:  # another job begins, or nobody is there to be told
                logger.exception("%r is left to its lease: it could not be completed", run)
            completion.is_settled = True
            self._heartbeats.remove(run)
        with self._lock:
            if self._unread.get(completion.thread) is completion:
                del self._unread[completion.thread]

    def _conclude(self, run: Run[Any], sent: Sent) -> None:
        try:
            count = sent.rows()
        except psycopg.Error as error:
            logger.info("the answer to the completion of %r was lost: %s", run, error)
            count = 0
        if count == 0:
            self._persistence.complete(run)  # says what is wrong, or that nothing is

    def _all(self) -> list[Completion]:
        if self._pid != os.getpid():
            return []
        with self._lock:
            return list(self._unread.values())

    def _work(self) -> None:
        while True:
            self._any.wait()
            time.sleep(TICK)
            for completion in self._all():
                if time.monotonic() - completion.at >= TICK:
                    self._settle(completion)
            with self._lock:
                if not self._unread:
                    self._any.clear()


def is_awaited(task: Task[Any, Any]) -> bool:
    """Say whether somebody may look at the row as soon as Celery says that the task has succeeded.

    That is so with a result that is kept, with what comes after it in a chain or a chord, and where no worker
    is involved.
    """
    request = task.request
    return bool(
        not request.ignore_result
        or request.callbacks
        or request.chain
        or request.chord
        or request.is_eager
        or request.called_directly
    )
