"""How an attempt writes to its row while the database may be away, and what a stale one does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tasktrail import counters, tracker
from tasktrail.celery.run import Run
from tasktrail.engines import Durability, Engines
from tasktrail.errors import DatabaseUnavailable, FencedOut
from tasktrail.tracker import Database, Outcome

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Persistence:
    """Guarded writes that outlast an absence of the database.

    Attributes:
        engines: the process's database engines.
        schema: where the library's own tables are.
        patience: how long a write is repeated, in seconds.
    """

    engines: Engines
    schema: str | None
    patience: float

    def write(self, write: Callable[[Database], T], durability: Durability = "durable") -> T:
        """Repeat a guarded write while the database is away; its guard makes the repetition harmless.

        Args:
            write: is given a connection on which each statement commits.
            durability: of its commits.

        Raises:
            DatabaseUnavailable: the database stayed away.
        """
        deadline = time.monotonic() + self.patience
        pause = 0.05
        while True:
            try:
                with self.engines.kept(durability) as db:
                    return write(db)
            except DatabaseUnavailable:
                if time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 1.0)

    def complete(self, run: Run[Any]) -> None:
        """Complete a row whose body did not use a session.

        Raises:
            FencedOut: the attempt was superseded.
            DatabaseUnavailable: the database stayed away.
        """
        try:
            self.write(run.complete)
        except FencedOut:
            if not self.was_completed(run):
                raise

    def was_completed(self, run: Run[Any]) -> bool:
        """Say whether this attempt's completion was committed although its answer was lost.

        Raises:
            DatabaseUnavailable: the database stayed away.
        """
        return self.write(lambda db: tracker.was_completed_by(db, run.model, run.fence))

    def was_failed(self, run: Run[Any], error: str, outcome: Outcome) -> bool:
        """Say whether this failure of an attempt was committed although its answer was lost.

        Raises:
            DatabaseUnavailable: the database stayed away.
        """
        return self.write(
            lambda db: tracker.was_failed_by(db, run.model, run.fence, error=error, outcome=outcome)
        )

    def note_stale(self, stale: FencedOut) -> None:
        """Log and count a write of an attempt that no longer owned its row."""
        logger.warning("%s", stale)
        try:
            with self.engines.kept("relaxed") as db:
                counters.add(db, self.schema, stale.domain, counters.STALE_WRITES)
        except DatabaseUnavailable as error:
            logger.warning("a stale write was not counted: %s", error)
