"""The rows that an operator means, taken in batches until none is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, func, select

from tasktrail.engines import Engines
from tasktrail.guards import CLOCK, Model, table_of
from tasktrail.states import Status

BATCH: Final = 500
"""How many rows one statement takes."""

LOCK_PATIENCE: Final = 10.0
"""How long rows that somebody keeps locked are waited for, in seconds."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows of one domain that meet conditions and are in one of some states.

    Attributes:
        engines: the process's database engines.
        model: the domain's model.
        conditions: what the rows meet.
        states: the states that count.
    """

    engines: Engines
    model: Model
    conditions: tuple[ColumnElement[bool], ...]
    states: Collection[Status]

    def count(self) -> int:
        """Count them."""
        is_meant = table_of(self.model).c.status.in_(sorted(self.states))
        with self.engines.pooled() as db:
            return db.execute(select(func.count()).where(is_meant, *self.conditions)).scalar_one()

    def until_none_is_left(self, take: Callable[[], int]) -> int:
        """Repeat a batch; it skips rows that somebody writes just now, so come back for these.

        Args:
            take: writes one batch, and returns how many rows it took.

        Returns:
            How many rows were taken in all.
        """
        total = 0
        deadline = math.inf
        while (taken := take()) or (time.monotonic() < deadline and self.count()):
            total += taken
            if not taken:
                deadline = min(deadline, time.monotonic() + LOCK_PATIENCE)
                time.sleep(0.05)
        return total


def server_now(engines: Engines) -> datetime:
    """Return the time of the database."""
    with engines.pooled() as db:
        return db.execute(select(CLOCK)).scalar_one()
