"""One event loop per worker process, kept for the process's life, for the bodies that are coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ProcessLoop:
    """An event loop on a thread of its own; a forked child starts another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it.

        When the waiting thread is interrupted (a soft time limit, a shutdown), the coroutine is cancelled and
        has ended before the interruption goes on.

        Args:
            coroutine: what to run.

        Returns:
            What it returned.

        Raises:
            BaseException: what it raised.
        """
        ended = threading.Event()

        async def ending() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(ending(), self._running())
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait()
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
                    target=self._loop.run_forever, name="tasktrail event loop", daemon=True
                ).start()
            return self._loop
