"""What tasktrail adds to a worker's main process: maintenance, the end of the grace period, and losses."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.signals import worker_shutting_down

if TYPE_CHECKING:
    from tasktrail.celery.trail import Trail

logger = logging.getLogger(__name__)

STOP_TIMEOUT: Final = 10.0
"""How long the main process waits for its threads when it stops, in seconds."""

LOOK_INTERVAL: Final = 0.5
"""Time between two looks for children that died, in seconds; Celery's own is 5 s."""


class TrailStep(bootsteps.StartStopStep):
    """Runs maintenance on a thread while the worker runs; starts after the pool has forked.

    When the worker is told to stop, Celery waits for running work as long as it takes. After the grace period
    what still runs is given back, so that another worker takes it before this one is killed.

    When the worker ends because of an error, nobody else knows. The same grace period begins; and if the
    process is still there some time after it, it is ended, so that whatever supervises it starts another one.
    Celery 5.7 can wait for ever then: for the rest of an answer of a pool process that it has killed.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._trail: Trail = worker.app.tasktrail
        self._stop = threading.Event()
        self._shutting_down = threading.Event()
        self._thread: threading.Thread | None = None
        self._look: Any = None

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Look for dead children often; called at each connection to the broker."""
        if self._look is not None:
            self._look.cancel()
        self._look = hub.call_repeatedly(LOOK_INTERVAL, worker.pool.maintain_pool)

    def start(self, worker: Any) -> None:
        """Start the threads; maintenance unless the settings switch it off."""
        atexit.register(self._trail.losses.close, STOP_TIMEOUT)  # the pool tells of losses until it has ended
        worker_shutting_down.connect(self._on_shutting_down, sender=worker.hostname)
        threading.Thread(
            target=self._end_grace, args=(worker,), name="tasktrail shutdown", daemon=True
        ).start()
        if not self._trail.settings.maintenance:
            return
        maintenance = self._trail.maintenance()
        self._thread = threading.Thread(
            target=maintenance.run, args=(self._stop,), name="tasktrail maintenance", daemon=True
        )
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """End the maintenance thread; another worker leads on."""
        self._stop.set()
        if worker.exitcode:
            self._shutting_down.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)

    def terminate(self, worker: Any) -> None:
        """The same on a cold shutdown."""
        self.stop(worker)

    def _on_shutting_down(self, **_: Any) -> None:
        """Called in a signal handler, where little more than this is safe."""
        self._shutting_down.set()

    def _end_grace(self, worker: Any) -> None:
        self._shutting_down.wait()
        threading.Event().wait(self._trail.settings.shutdown_grace)
        logger.info("the grace period is over; what still runs is given back")
        try:
            self._trail.heartbeats.give_back("the worker was shut down")
            if isinstance(worker.pool, PreforkPool):
                worker.consumer.cancel_active_requests()
        finally:
            if worker.exitcode and not worker.blueprint.shutdown_complete.wait(STOP_TIMEOUT):
                logger.critical("the worker failed and does not end by itself; its process is ended")
                self._trail.losses.close(STOP_TIMEOUT)
                os._exit(worker.exitcode)
