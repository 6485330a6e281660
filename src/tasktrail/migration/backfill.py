"""Copies the rows that are there already, all tables of a plan, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Final

from tasktrail.migration.copier import Copier, Progress, Report
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.session import Session
from tasktrail.migration.state import MIRRORING, Phase
from tasktrail.migration.throttle import Throttle
from tasktrail.migration.transform import HASH
from tasktrail.migration.workspace import Workspace

CONNECTIONS: Final = 2
"""How many tables are copied at a time: one copy keeps one core of the server busy, and others need some."""


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
        connections: int = CONNECTIONS,
    ) -> None:
        """Remember what to copy and how.

        Args:
            workspace: the plan and the database.
            chunk_size: rows in a chunk; by default what the plan says for each table.
            error_budget: how many rows of a table may make their transform fail; they are quarantined.
            throttle: when to make room for others.
            report: is told after each chunk.
            only: names of tables; the others are left for later. All, when none is named.
            connections: how many tables are copied at a time, each on a connection of its own.
        """
        self._workspace = workspace
        self._journal = workspace.journal
        self._chunk_size = chunk_size
        self._error_budget = error_budget
        self._throttle = throttle or Throttle()
        self._report = report
        self._connections = connections
        self._reporting = threading.Lock()
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
            self._copy_all(session, reconcilers)
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

    def _copy_all(self, session: Session, reconcilers: Sequence[Reconciler]) -> None:
        """Copy all tables, the largest first; the first failure ends the others after their chunk."""
        copiers = [
            Copier(
                self._workspace,
                reconciler,
                chunk_size=self._chunk_size,
                throttle=self._throttle,
                report=self._report_alone,
            )
            for reconciler in reconcilers
        ]
        if self._connections == 1 or len(copiers) == 1:
            with session.not_waiting_for_disk():
                for copier in copiers:
                    copier.run(session)
            return
        copiers.sort(key=lambda copier: copier.total(session), reverse=True)
        stop = threading.Event()
        with ThreadPoolExecutor(self._connections) as pool:
            try:
                for copied in as_completed([pool.submit(self._copy, copier, stop) for copier in copiers]):
                    copied.result()
            finally:
                stop.set()

    def _copy(self, copier: Copier, stop: threading.Event) -> None:
        """Copy a table on a connection of its own."""
        name = f"migrate backfill {copier.table.name}"
        with self._workspace.session(name) as session, session.not_waiting_for_disk():
            copier.run(session, stop)

    def _report_alone(self, progress: Progress) -> None:
        with self._reporting:
            self._report(progress)

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
