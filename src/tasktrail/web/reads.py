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

MOST: Final = 500
"""So many answers are kept."""


@dataclass(slots=True)
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    read_at: float = float("-inf")
    value: Any = None


class Reads:
    """The answers of one application, by what was asked."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, _Answer] = {}
        self._lock = threading.Lock()

    def shared(self, key: Hashable, read: Callable[[], T], *, fresh: float = FRESH) -> T:
        """Return an answer that is fresh enough; of many who wait for it, one reads.

        Args:
            key: what is asked.
            read: reads it.
            fresh: how old the answer may be, in seconds.
        """
        with self._lock:
            answer = self._answers.get(key)
            if answer is None:
                if len(self._answers) >= MOST:
                    self._answers.clear()
                answer = self._answers[key] = _Answer()
        with answer.lock:
            if time.monotonic() - answer.read_at > fresh:
                answer.value = read()
                answer.read_at = time.monotonic()
            return cast("T", answer.value)
