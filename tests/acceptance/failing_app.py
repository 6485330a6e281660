"""The same application in a worker that fails, and then waits for its pool for ever, as Celery 5.7 can."""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool

from tests.acceptance.worker_app import app


class Fails(bootsteps.StartStopStep):
    """Fails as a broker does that refuses a queue."""

    def start(self, parent: Any) -> None:
        """Raise an error that Celery cannot recover from."""
        raise ValueError("the broker refuses it")


def wait_for_ever(pool: TaskPool) -> None:
    """Take the place of what ends a pool."""
    threading.Event().wait()


TaskPool.on_stop = wait_for_ever
app.steps["consumer"].add(Fails)
