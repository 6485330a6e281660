"""What tasktrail adds to a worker's main process: the maintenance thread, and the recorder of losses."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps

if TYPE_CHECKING:
    from tasktrail.celery.trail import Trail

logger = logging.getLogger(__name__)

STOP_TIMEOUT: Final = 10.0
"""How long the main process waits for its threads when it stops, in seconds."""


class TrailStep(bootsteps.StartStopStep):
    """Runs maintenance on a thread while the worker runs; starts after the pool has forked."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._trail: Trail = worker.app.tasktrail
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, worker: Any) -> None:  # noqa: ARG002  # Celery passes it
        """Start the maintenance thread, unless the settings switch it off."""
        if not self._trail.settings.maintenance:
            return
        maintenance = self._trail.maintenance()
        self._thread = threading.Thread(
            target=maintenance.run, args=(self._stop,), name="tasktrail maintenance", daemon=True
        )
        self._thread.start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002
        """End the thread, and record the losses that are still waiting."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)
        self._trail.losses.close(STOP_TIMEOUT)

    def terminate(self, worker: Any) -> None:
        """The same on a cold shutdown."""
        self.stop(worker)
