"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, seconds: float = 20.0) -> T:
    """Poll until a condition is true.

    Args:
        condition: called again and again; its first true value is returned.
        seconds: how long it may take.

    Raises:
        AssertionError: it stayed false for that long.
    """
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so after {seconds:g} s: {condition}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return value
