"""Live updates: one poller tells all open pages what has changed, and they fetch what they show."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from tasktrail.access import operations
from tasktrail.celery import Trail
from tasktrail.errors import TasktrailError
from tasktrail.monitoring import queries
from tasktrail.web.reads import Reads

logger = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Between two looks, in seconds, while somebody follows."""

MOST_SHARE: Final = 0.1
"""So much of the time it looks, at most: on a database that is slow to answer, it looks less often."""

SILENCE: Final = 15.0
"""A connection on which nothing was said for so long is shown to be alive, in seconds."""

LONGEST: Final = 600.0
"""After so many seconds a connection ends, and whoever may still look on opens it again."""

TROUBLE: Final = "event: trouble\ndata: {}\n\n"


class Live:
    """The poller of one application; it looks only while there is somebody to tell."""

    def __init__(self, trail: Trail, reads: Reads) -> None:
        """Remember what it is about; nothing is begun.

        Args:
            trail: whose rows are looked at.
            reads: is told of each look.
        """
        self._trail = trail
        self._reads = reads
        self._followers: set[asyncio.Queue[str]] = set()
        self._task: asyncio.Task[None] | None = None
        self._last: str | None = None
        self.looks = 0

    async def follow(self) -> AsyncIterator[str]:
        """Return what is to be sent to one open page, as server-sent events, until it has had enough."""
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=4)
        if self._last is not None:
            queue.put_nowait(self._last)
        self._followers.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._poll())
        ends_at = asyncio.get_running_loop().time() + LONGEST
        try:
            yield "retry: 3000\n\n"
            while asyncio.get_running_loop().time() < ends_at:
                try:
                    said = await asyncio.wait_for(queue.get(), SILENCE)
                except TimeoutError:
                    said = ": still here\n\n"
                yield said
        finally:
            self._followers.discard(queue)

    async def _poll(self) -> None:
        while self._followers:
            began = time.monotonic()
            try:
                found = await run_in_threadpool(self.look)
                said = f"event: look\ndata: {json.dumps(found)}\n\n"
            except TasktrailError as error:
                logger.warning("open pages are not told what has changed: %s", error)
                said = TROUBLE
            except Exception:  # the next look may do better, and nobody else would begin one
                logger.exception("open pages are not told what has changed")
                said = TROUBLE
            self._last = said
            for queue in tuple(self._followers):
                with suppress(asyncio.QueueFull):  # whoever does not read gets the next one
                    queue.put_nowait(said)
            await asyncio.sleep(rest_after(time.monotonic() - began))
        self._last = None

    def look(self) -> dict[str, Any]:
        """Return for each domain a mark that changes with its rows, and how many operations run."""
        self.looks += 1
        self._reads.looked()
        trail = self._trail
        with trail.figures.errors(), queries.reading(trail.figures.sync) as db:
            marks = {domain.name: _mark(queries.counts(db, domain)) for domain in trail.registry}
            running = operations.pulse(db, trail.schema)
            now = queries.server_time(db)
        return {
            "at": now.isoformat(),
            "domains": marks,
            "operations": _mark(running),
        }


def rest_after(seconds: float) -> float:
    """Return how long to rest after a look that took so long, in seconds."""
    return max(INTERVAL, seconds / MOST_SHARE - seconds)


def _mark(value: object) -> str:
    return hashlib.blake2s(repr(value).encode(), digest_size=6).hexdigest()
