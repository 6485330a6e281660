"""Renews the leases of a process's running rows, from a thread, so that a busy body does not stop it."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any, Final

from tasktrail import tracker
from tasktrail.celery.run import Run
from tasktrail.engines import Engines
from tasktrail.errors import DatabaseUnavailable, FencedOut, TrackingNotFound
from tasktrail.models import BaseTaskTracking
from tasktrail.states import Status
from tasktrail.tracker import Fence

logger = logging.getLogger(__name__)

SWITCH_INTERVAL: Final = 0.00005
"""Longest wait of the heartbeat's thread for the interpreter before it asks for it, in seconds.

A thread that waits for CPython's interpreter lock asks the holder for it only after one whole interval in
which nobody let go of it. With the default of 5 ms, a body that computes for 2 ms between two short system
calls lets go in time, but takes the lock back before the waiting thread has woken up: measured, its lease
ran out. With an interval below the time between such calls the lock is handed over. Without waiting threads
this costs nothing.
"""


class Heartbeats:
    """The running rows of this process, and the thread that renews their leases.

    One statement per interval and domain renews all of them. A row that it does not find was cancelled or
    taken over, which the run is told.
    """

    def __init__(self, engines: Engines, interval: float) -> None:
        """Remember how; the thread starts with the first row.

        Args:
            engines: the process's database engines.
            interval: time between two renewals, in seconds.
        """
        self._engines = engines
        self._interval = interval
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._runs: dict[tuple[type[BaseTaskTracking], Fence], Run[Any]] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, run: Run[Any]) -> bool:
        """Begin to renew a row's lease.

        Returns:
            Whether this process may work on the row; not after ``give_back``.

        Raises:
            FencedOut: it works on it already, with the same claim.
        """
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            if self._is_closed:
                return False
            if self._runs.setdefault((run.model, run.fence), run) is not run:
                raise FencedOut(run.domain, run.id, "claim", Status.PROCESSING)
            if self._thread is None:
                sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
                self._thread = threading.Thread(target=self._beat, name="tasktrail heartbeat", daemon=True)
                self._thread.start()
        return True

    def remove(self, run: Run[Any]) -> None:
        """Stop renewing a row's lease."""
        with self._lock:
            self._runs.pop((run.model, run.fence), None)

    def beat(self) -> None:
        """Renew the leases of all running rows, and tell the runs that lost theirs.

        Raises:
            DatabaseUnavailable: nothing was renewed, or not all of it.
        """
        with self._lock:
            runs = list(self._runs.values())
        by_model: dict[type[BaseTaskTracking], list[Run[Any]]] = {}
        for run in sorted(runs, key=lambda run: run.fence.started_at):
            by_model.setdefault(run.model, []).append(run)
        for model, of_model in by_model.items():
            newest = {run.id: run for run in of_model}
            with self._engines.kept("relaxed") as db:
                owned = tracker.renew(db, model, [run.fence for run in of_model])
                for run in of_model:
                    if run.id not in owned or newest[run.id] is not run:
                        _stop(db, run)

    def give_back(self, reason: str) -> None:
        """Release all running rows without counting an attempt, tell their runs, and take no more.

        Args:
            reason: why, for the bodies.
        """
        with self._lock:
            self._is_closed = True
            runs = list(self._runs.values())
        for run in runs:
            try:
                with self._engines.kept() as db:
                    tracker.release(db, run.model, run.fence)
            except (FencedOut, TrackingNotFound):
                pass  # it has ended, or is somebody else's already
            except DatabaseUnavailable as error:
                logger.warning("%r is left to its lease: %s", run, error)
            run.stop(reason)

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._interval):
            try:
                self.beat()
            except DatabaseUnavailable as error:
                logger.warning("leases were not renewed: %s", error)
            except Exception:  # the thread must outlive whatever it meets
                logger.exception("leases were not renewed")


def _stop(db: tracker.Database, run: Run[Any]) -> None:
    try:
        row = tracker.get(db, run.model, run.id)
    except TrackingNotFound:
        run.stop("the row is gone")
        return
    if row.status == Status.CANCELLED:
        run.stop(f"cancelled: {row.error_message or 'no reason given'}")
    elif not tracker.was_completed_by(db, run.model, run.fence):  # else it was this attempt, just now
        run.stop(f"another attempt took over; the row is {row.status}")
