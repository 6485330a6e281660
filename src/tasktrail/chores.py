"""Work that is to be done again and again beside a loop, without holding the loop up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

PATIENCE: Final = 5.0
"""How long to wait for a chore to end when everything else has ended, in seconds."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done again and again.

    Attributes:
        name: for the log.
        interval: rest between the end of one run and the next, in seconds.
        work: does it; what it raises is logged, and it is tried again after the interval.
    """

    name: str
    interval: float
    work: Callable[[], object]


@contextmanager
def doing(chores: Sequence[Chore]) -> Iterator[None]:
    """Do chores, each on a thread of its own, for as long as the block takes.

    A chore that is at work when the block ends may come to its end later; no new one is begun.

    Args:
        chores: each is done at once, and then after each interval.
    """
    stop = threading.Event()
    threads = [
        threading.Thread(target=_repeat, args=(chore, stop), name=f"tasktrail {chore.name}", daemon=True)
        for chore in chores
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _repeat(chore: Chore, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            chore.work()
        except Exception:  # the next run may do better, and nothing else may suffer
            logger.exception("%s failed; it is tried again in %g s", chore.name, chore.interval)
        stop.wait(chore.interval)
