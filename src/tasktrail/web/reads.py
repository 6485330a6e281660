"""Reads that are shared: whoever asks for the same at the same moment gets the same answer, read once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

FRESH: Final = 1.0
"""For so many seconds an answer serves all who follow the page live."""

LONGEST: Final = 10.0
"""An answer that was read after the poller's last look serves them until its next one, but no longer."""

MOST: Final = 500
"""So many answers are kept."""


@dataclass(slots=True)
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    begun_at: float = float("-inf")
    value: Any = None


class Reads:
    """The answers of one application, by what was asked."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, _Answer] = {}
        self._lock = threading.Lock()
        self._looked_at: float | None = None

    def looked(self) -> None:
        """Note that the poller looks now: whoever it tells of a change must see what it sees."""
        self._looked_at = time.monotonic()

    def shared(
        self, key: Hashable, read: Callable[[], T], *, fresh: float = FRESH, until_look: bool = False
    ) -> T:
        """Return an answer that is fresh enough; of many who wait for it, one reads.

        Args:
            key: what is asked.
            read: reads it.
            fresh: how old the answer may be, in seconds.
            until_look: instead, whether the poller has looked since. So those who were told of a change see
                it, and it is read once, however long it takes to answer them all.
        """
        with self._lock:
            answer = self._answers.get(key)
            if answer is None:
                if len(self._answers) >= MOST:
                    self._answers.clear()
                answer = self._answers[key] = _Answer()
        with answer.lock:
            now = time.monotonic()
            oldest = now - fresh
            if until_look and self._looked_at is not None:
                oldest = max(self._looked_at, now - LONGEST)
            if answer.begun_at < oldest:
                answer.value = read()
                answer.begun_at = now
            return cast("T", answer.value)
