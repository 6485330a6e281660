"""Copies the rows that are there already, chunk by chunk; the cursor is committed with its chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from tasktrail.errors import MigrationError, MigrationPaused
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import listed, qualified
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.session import Session
from tasktrail.migration.state import MIRRORING, Phase
from tasktrail.migration.sync import apply_changes
from tasktrail.migration.transform import HASH
from tasktrail.migration.workspace import Workspace

LONGEST_CHUNK: Final = 1.0
"""A chunk that took longer is followed by one of half the size, in seconds."""

SHORT_CHUNK: Final = LONGEST_CHUNK / 4
"""A chunk that took less is followed by one of twice the size, up to that of the plan, in seconds."""

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


Report: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """When the copying makes room for others.

    Attributes:
        share: part of the time in which it works, from 0 to 1; it rests after each chunk for the other
            part.
        replication_lag: rests while a replica is further behind than this, in seconds; None does not look.
        lock_waits: rests while more sessions than this wait for a lock.
        patience: longest rest at once, in seconds.
    """

    share: float = 1.0
    replication_lag: float | None = None
    lock_waits: int = 5
    patience: float = 30.0

    def rest(self, session: Session, worked: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Rest as long as it takes.

        Args:
            session: outside any transaction.
            worked: how long the last chunk took, in seconds.
            sleep: how to wait.
        """
        if self.share < 1:
            sleep(min(worked * (1 - self.share) / max(self.share, 0.01), self.patience))
        waited, pause = 0.0, 0.05
        while waited < self.patience and self._is_crowded(session):
            sleep(pause)
            waited, pause = waited + pause, min(pause * 2, 2.0)

    def _is_crowded(self, session: Session) -> bool:
        waiting = session.value(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype <> 'advisory' AND pid <> "
            "pg_backend_pid()"
        )
        if waiting > self.lock_waits:
            return True
        if self.replication_lag is None:
            return False
        lag = session.value(
            "SELECT coalesce(max(extract(epoch FROM replay_lag)), 0) FROM pg_stat_replication"
        )
        return bool(lag > self.replication_lag)


def next_size(size: int, largest: int, worked: float) -> int:
    """Return how many rows the next chunk takes.

    Args:
        size: how many the last one took.
        largest: what the plan says.
        worked: how long the last one took, in seconds.
    """
    if worked > LONGEST_CHUNK:
        return max(size // 2, min(SMALLEST_CHUNK, largest))
    return min(size * 2, largest) if worked < SHORT_CHUNK else size


class Backfill:
    """Copies all tables of a plan, going on where the last run ended."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        chunk_size: int | None = None,
        error_budget: int = 0,
        throttle: Throttle | None = None,
        report: Report = lambda _: None,
        only: Collection[str] = (),
    ) -> None:
        """Remember what to copy and how.

        Args:
            workspace: the plan and the database.
            chunk_size: rows in a chunk; by default what the plan says for each table.
            error_budget: how many rows of a table may make their transform fail; they are quarantined.
            throttle: when to make room for others.
            report: is told after each chunk.
            only: names of tables; the others are left for later. All, when none is named.
        """
        self._workspace = workspace
        self._journal = workspace.journal
        self._chunk_size = chunk_size
        self._error_budget = error_budget
        self._throttle = throttle or Throttle()
        self._report = report
        self._only = frozenset(workspace.plan.table(name).name for name in only)
        self._tables = workspace.own("tasktrail_migration_tables")

    def run(self, session: Session) -> None:
        """Copy until everything is copied, then look for rows that were missed.

        Args:
            session: a connection of its own.

        Raises:
            WrongPhase: the legacy tables have no triggers yet, or are not the truth any more.
            MigrationBusy: another backfill runs.
            ErrorBudgetExceeded: too many rows fail; all chunks before that one are kept.
            MigrationPaused: somebody asked for it; all chunks so far are kept.
        """
        name = self._workspace.plan.name
        with session.alone(name, "runner", doing="copy rows"):
            self._journal.require(session, "copy rows", *MIRRORING)
            reconcilers = [
                reconciler
                for reconciler in self._workspace.reconcilers(session, self._error_budget)
                if not self._only or reconciler.staging.transform.table.name in self._only
            ]
            for reconciler in reconcilers:
                self._copy(session, reconciler)
            self.catch_up(session, reconcilers)
            state = self._journal.require(session, "copy rows", *MIRRORING)
            if state.phase is Phase.SYNCING and self._is_complete(session):
                with session.transaction():
                    self._journal.move(session, Phase.BACKFILLED, step="copy rows")

    def catch_up(self, session: Session, reconcilers: list[Reconciler]) -> int:
        """Take what neither the cursor nor a trigger has seen, e.g. while triggers were disabled.

        Returns:
            How many there were.
        """
        return sum(self._take_missed(session, reconciler) for reconciler in reconcilers)

    def _is_complete(self, session: Session) -> bool:
        unfinished = session.value(
            f"SELECT count(*) FROM {self._tables} WHERE migration = %(name)s AND finished_at IS NULL",
            name=self._workspace.plan.name,
        )
        return not unfinished

    def _copy(self, session: Session, reconciler: Reconciler) -> None:
        table = reconciler.staging.transform.table
        size = self._chunk_size or table.chunk_size
        total = self._total(session, reconciler)
        began, copied = time.monotonic(), 0
        while True:
            self._heed_pause(session)
            position = self._position(session, table.name)
            if position["finished_at"] is not None:
                return
            chunk_began = time.monotonic()
            count = self._copy_chunk(session, reconciler, position, size)
            worked = time.monotonic() - chunk_began
            copied += count
            done = position["rows_done"] + count
            self._report(Progress(table.name, done, max(total, done), time.monotonic() - began, copied))
            if self._chunk_size is None:
                size = next_size(size, table.chunk_size, worked)
            apply_changes(session, self._workspace, [reconciler])
            if position["chunk"] in ANALYZED_AFTER:
                self._analyze(session, reconciler)
            self._throttle.rest(session, worked)

    def _copy_chunk(
        self, session: Session, reconciler: Reconciler, position: dict[str, Any], size: int
    ) -> int:
        staging = reconciler.staging
        transform = staging.transform
        key = transform.table.key
        columns = f"({listed(key, 's')})"
        conditions = [
            f"{columns} {operator} ({', '.join(transform.key_values(literal(str(position[name]))))})"
            for name, operator in (("cursor", ">"), ("bound", "<="))
            if position[name] is not None
        ]
        if position["bound"] is None:
            conditions = ["FALSE"]  # the table was empty when its triggers were put on
        taken = f"""
            INSERT INTO {staging.keys} (_source_key, {staging.key_columns})
            SELECT {transform.source_key}, {listed(key, "s")} FROM {qualified(transform.table.source)} s
            WHERE {" AND ".join(conditions)} ORDER BY {listed(key, "s")} LIMIT {size}
        """
        descending = ", ".join(f"_k{number} DESC" for number in range(len(key)))
        last = f"SELECT _source_key FROM {staging.keys} WHERE _round = 0 ORDER BY {descending} LIMIT 1"

        failed_before = len(reconciler.budget.failed)

        def finish(db: Session, count: int) -> None:
            cursor = db.value(last) if count else position["cursor"]
            db.run(
                f"UPDATE {self._tables} SET cursor = %(cursor)s, chunk = chunk + 1, "
                "rows_done = rows_done + %(rows)s, errors = errors + %(errors)s, started_at = "
                "coalesce(started_at, now()), "
                "finished_at = CASE WHEN %(is_last)s THEN now() END "
                "WHERE migration = %(migration)s AND table_name = %(table)s",
                cursor=cursor,
                rows=count,
                errors=len(reconciler.budget.failed) - failed_before,
                is_last=count < size,
                migration=self._workspace.plan.name,
                table=transform.table.name,
            )

        return reconciler.run(session, lambda db: db.run(taken), chunk=position["chunk"] + 1, finish=finish)

    def _analyze(self, session: Session, reconciler: Reconciler) -> None:
        """Tell the planner about tables that have grown from nothing; autovacuum comes too late."""
        targets = [qualified(route.target) for route in reconciler.staging.transform.table.routes]
        session.run(f"ANALYZE {', '.join([self._workspace.own('tasktrail_ledger'), *targets])}")

    def _position(self, session: Session, table: str) -> dict[str, Any]:
        row = session.row(
            f"SELECT * FROM {self._tables} WHERE migration = %(migration)s AND table_name = %(table)s",
            migration=self._workspace.plan.name,
            table=table,
        )
        if row is None:
            raise MigrationError(f"{table}: has no triggers yet; run `tasktrail migrate sync`")
        return row

    def _total(self, session: Session, reconciler: Reconciler) -> int:
        """Return about how many rows there are, for the progress; exact where the planner has no idea."""
        source = qualified(reconciler.staging.transform.table.source)
        estimate = session.value(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%(t)s)", t=source
        )
        return int(estimate if estimate and estimate > 0 else session.value(f"SELECT count(*) FROM {source}"))

    def _heed_pause(self, session: Session) -> None:
        if self._journal.require(session, "copy rows").is_paused:
            raise MigrationPaused

    def _take_missed(self, session: Session, reconciler: Reconciler) -> int:
        """Reconcile rows whose ledger row is missing or out of date, and ledger rows whose row is gone."""
        staging = reconciler.staging
        transform = staging.transform
        known = f"{staging.ledger} l WHERE {staging.is_known}"
        missed = f"""
            SELECT {transform.source_key} AS key FROM {transform.source} s
            LEFT JOIN (SELECT l.source_key, l.source_hash FROM {known}) l
                ON l.source_key = {transform.source_key}
            WHERE l.source_hash IS DISTINCT FROM {HASH}
            UNION ALL
            SELECT l.source_key FROM {known} AND NOT EXISTS (
                SELECT FROM {transform.source} s WHERE {transform.source_key} = l.source_key)
        """
        keys = [row["key"] for row in session.rows(missed)]
        for start in range(0, len(keys), transform.table.chunk_size):
            part = keys[start : start + transform.table.chunk_size]
            reconciler.run(session, partial(_fill, reconciler, part))
        return len(keys)


def _fill(reconciler: Reconciler, keys: list[str], db: Session) -> int:
    return reconciler.staging.fill(db, keys)
