"""Copies the rows of one legacy table that are there already, chunk by chunk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tasktrail.errors import MigrationBusy, MigrationError, MigrationPaused
from tasktrail.migration.names import listed, qualified
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.session import Session
from tasktrail.migration.sync import apply_changes
from tasktrail.migration.throttle import Throttle
from tasktrail.migration.workspace import Workspace

LONGEST_CHUNK: Final = 4.0
"""A chunk that took longer is followed by a smaller one, one that took a fourth by a larger one (seconds)."""

SMALLEST_CHUNK: Final = 100
"""Rows; below that the statements cost more than the rows."""

ANALYZED_AFTER: Final = frozenset({0, 7, 63, 255})
"""After the chunks with these numbers, from 0, the planner is told about the tables that have grown."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the copying of one table has come.

    Attributes:
        table: its name in the plan.
        done: rows copied, by all runs.
        total: about how many there are.
        seconds: how long this run has worked on it.
        copied: rows that this run copied.
    """

    table: str
    done: int
    total: int
    seconds: float
    copied: int

    @property
    def rate(self) -> float:
        """Rows a second, in this run."""
        return self.copied / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds to go at this rate; None when that cannot be said yet."""
        return max(self.total - self.done, 0) / self.rate if self.rate else None


OTHERS: Final = "another run has copied this chunk meanwhile"
"""Who is busy, when the cursor is no longer where it was."""

Report: TypeAlias = Callable[[Progress], None]


class Copier:
    """Copies one table, going on where the last run ended; the cursor is committed with its chunk.

    Args:
        workspace: the plan and the database.
        reconciler: of the table.
        chunk_size: rows in a chunk, for all of them; by default at most what the plan says.
        throttle: when to make room for others.
        report: is told after each chunk.
    """

    def __init__(
        self,
        workspace: Workspace,
        reconciler: Reconciler,
        *,
        chunk_size: int | None = None,
        throttle: Throttle,
        report: Report,
    ) -> None:
        self.table = reconciler.staging.transform.table
        self._workspace = workspace
        self._reconciler = reconciler
        self._chunk_size = chunk_size
        self._throttle = throttle
        self._report = report
        self._progress = workspace.own("tasktrail_migration_tables")

    def run(self, session: Session, stop: threading.Event | None = None) -> None:
        """Copy until everything is copied.

        Args:
            session: outside any transaction.
            stop: ends it after the chunk it is at.

        Raises:
            MigrationError: the table has no triggers yet.
            MigrationPaused: somebody asked for it; all chunks so far are kept.
            MigrationBusy: somebody else copies the same table; their chunks are kept.
            ErrorBudgetExceeded: too many rows fail; all chunks before that one are kept.
        """
        size = self._chunk_size or self.table.chunk_size
        total = self.total(session)
        began, copied = time.monotonic(), 0
        while not (stop and stop.is_set()):
            self._heed_pause(session)
            position = self._position(session)
            if position["finished_at"] is not None:
                return
            count, worked = self._copy_chunk(session, position, size)
            copied += count
            done = position["rows_done"] + count
            self._report(Progress(self.table.name, done, max(total, done), time.monotonic() - began, copied))
            if self._chunk_size is None:
                size = next_size(size, worked, self.table.chunk_size, revisited=self._reconciler.revisited)
            # One batch: on a table that is written to all the time, emptying the queue could take for ever.
            apply_changes(session, self._workspace, [self._reconciler], batches=1)
            if position["chunk"] in ANALYZED_AFTER:
                self._analyze(session)
            self._throttle.rest(session, worked)

    def _copy_chunk(self, session: Session, position: dict[str, Any], size: int) -> tuple[int, float]:
        """Copy the next chunk; return how many rows it had, and how long it took once it had its lock."""
        staging = self._reconciler.staging
        transform = staging.transform
        key = self.table.key
        descending = ", ".join(f"_k{number} DESC" for number in range(len(key)))
        last = f"SELECT _source_key FROM {staging.keys} WHERE _round = 0 ORDER BY {descending} LIMIT 1"

        failed_before = len(self._reconciler.budget.failed)
        began = time.monotonic()

        def fill(db: Session) -> int:
            nonlocal began
            began = time.monotonic()
            bound = self._position(db)["bound"]  # who follows may have moved it, until the first chunk
            return db.run(f"""
                INSERT INTO {staging.keys} (_source_key, {staging.key_columns})
                SELECT {transform.source_key}, {listed(key, "s")} FROM {qualified(self.table.source)} s
                WHERE {transform.is_within(position["cursor"], bound)}
                ORDER BY {listed(key, "s")} LIMIT {size}
            """)

        def finish(db: Session, count: int) -> None:
            cursor = db.value(last) if count else position["cursor"]
            is_ours = db.run(
                f"UPDATE {self._progress} SET cursor = %(cursor)s, chunk = chunk + 1, "
                "rows_done = rows_done + %(rows)s, errors = errors + %(errors)s, started_at = "
                "coalesce(started_at, now()), "
                "finished_at = CASE WHEN %(is_last)s THEN now() END "
                "WHERE migration = %(migration)s AND table_name = %(table)s AND chunk = %(chunk)s",
                cursor=cursor,
                rows=count,
                errors=len(self._reconciler.budget.failed) - failed_before,
                is_last=count < size,
                migration=self._workspace.plan.name,
                table=self.table.name,
                chunk=position["chunk"],
            )
            if not is_ours:
                raise MigrationBusy(self._workspace.plan.name, f"copy {self.table.name}", OTHERS)

        count = self._reconciler.run(session, fill, chunk=position["chunk"] + 1, finish=finish)
        return count, time.monotonic() - began

    def _analyze(self, session: Session) -> None:
        """Tell the planner about tables that have grown from nothing; autovacuum comes too late."""
        targets = [qualified(route.target) for route in self.table.routes]
        session.run(f"ANALYZE {', '.join([self._workspace.own('tasktrail_ledger'), *targets])}")

    def _position(self, session: Session) -> dict[str, Any]:
        row = session.row(
            f"SELECT * FROM {self._progress} WHERE migration = %(migration)s AND table_name = %(table)s",
            migration=self._workspace.plan.name,
            table=self.table.name,
        )
        if row is None:
            raise MigrationError(f"{self.table.name}: has no triggers yet; run `tasktrail migrate sync`")
        return row

    def total(self, session: Session) -> int:
        """Return about how many rows there are, for the progress; exact where the planner has no idea."""
        source = qualified(self.table.source)
        estimate = session.value(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%(t)s)", t=source
        )
        return int(estimate if estimate and estimate > 0 else session.value(f"SELECT count(*) FROM {source}"))

    def _heed_pause(self, session: Session) -> None:
        if self._workspace.journal.require(session, "copy rows").is_paused:
            raise MigrationPaused


def next_size(size: int, worked: float, most: int, *, revisited: int = 0) -> int:
    """Return how large the next chunk is.

    Where most of the work was on earlier rows of the same units, all of those rows come again with the next
    chunk, whatever its size; so the fewer chunks there are, the better.

    Args:
        size: of the last one, in rows.
        worked: how long that took, in seconds; without the wait for others who reconcile the same table.
        most: what the plan says.
        revisited: how many earlier rows it took besides, since they share a unit of work with its own.
    """
    if revisited > size:
        return min(2 * size, most)
    if worked > LONGEST_CHUNK:
        return max(size // 2, min(SMALLEST_CHUNK, size))
    return min(2 * size, most) if worked < LONGEST_CHUNK / 4 else size
