"""One event loop per worker process, kept for the process's life, for the bodies that are coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class ProcessLoop:
    """An event loop on a thread of its own; a forked child starts another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, T], *, on_start: Callable[[Callable[[], None]], None]) -> T:
        """Run a coroutine on the loop and wait until it has ended.

        When the waiting thread is interrupted (a soft time limit, a shutdown), the coroutine is cancelled and
        has ended before the interruption goes on.

        Args:
            coroutine: what to run.
            on_start: is given a function that cancels the coroutine from any thread.

        Returns:
            What the coroutine returned.

        Raises:
            BaseException: what it raised; ``asyncio.CancelledError`` if it was cancelled.
        """
        loop = self._running()
        outcome: Future[T] = Future()
        started: list[asyncio.Task[T]] = []

        def start() -> None:
            started.append(loop.create_task(coroutine))
            started[0].add_done_callback(lambda task: _copy_outcome(task, outcome))

        def cancel() -> None:
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in started])

        loop.call_soon_threadsafe(start)
        on_start(cancel)
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():
                cancel()
                outcome.exception()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._pid = os.getpid()
            self._loop = None
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_run_for_ever, args=(self._loop,), name="tasktrail event loop", daemon=True
                ).start()
            return self._loop


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop; a coroutine that calls ``sys.exit`` ends itself and not the loop of all others."""
    while True:
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


def _copy_outcome(task: asyncio.Task[T], outcome: Future[T]) -> None:
    if task.cancelled():
        outcome.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
