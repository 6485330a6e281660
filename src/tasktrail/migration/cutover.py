"""The cutover: the moment at which the new tables become the truth.

The legacy tables are locked against writers for as long as it takes to carry the last changes over.
Everything that can be done before or after is done then. The commit of that transaction is the moment: before
it everything is as it was, after it the rest can be repeated until it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from tasktrail.errors import GateClosed, MigrationError
from tasktrail.migration import sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.carrier import carry_back
from tasktrail.migration.gate import Conditions, reasons
from tasktrail.migration.locks import NotDrained, under_locks
from tasktrail.migration.names import qualified
from tasktrail.migration.numbering import number_on
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.release import release
from tasktrail.migration.reverse import WriteBack, ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.state import REVERSED, Phase
from tasktrail.migration.workspace import Workspace


class Cutover:
    """Makes the new tables the truth."""

    def __init__(self, workspace: Workspace, session: Session) -> None:
        """Remember which ones, and over which connection."""
        self.workspace = workspace
        self.session = session
        self.journal = workspace.journal

    def gate(self, conditions: Conditions) -> list[str]:
        """Return why there can be no cutover now, each with what to do; empty when there can.

        Args:
            conditions: what must hold.

        Raises:
            WrongPhase: there is no parallel run.
        """
        state = self.journal.require(self.session, "cut over", Phase.PARALLEL)
        return reasons(self.session, self.workspace, state, conditions)

    def run(self, conditions: Conditions) -> bool:
        """Make the new tables the truth. Interrupted after the moment, it is finished by running it again.

        Args:
            conditions: what must hold.

        Returns:
            Whether they became it; not when they were it already.

        Raises:
            WrongPhase: there is no parallel run.
            GateClosed: a condition does not hold.
            MigrationError: the locks were not had; everything is as before.
        """
        with self.session.alone(self.workspace.plan.name, "runner", doing="cut over"):
            state = self.journal.require(self.session, "cut over", Phase.PARALLEL, *REVERSED)
            if is_due := state.phase is Phase.PARALLEL:
                closed = reasons(self.session, self.workspace, state, conditions)
                if closed:
                    raise GateClosed(self.workspace.plan.name, "cut over", closed)
                self._turn(conditions.second_window)
            self._finish()
        return is_due

    def _turn(self, second_window: timedelta) -> None:
        session, workspace = self.session, self.workspace
        reconcilers = workspace.reconcilers(session, error_budget=None)
        for reconciler in reconcilers:
            reconciler.staging.create(session)
        sync.apply_changes(session, workspace, reconcilers)
        Backfill(workspace).catch_up(session, reconcilers)
        ways = ways_back(workspace, [reconciler.staging for reconciler in reconcilers])
        # Their sequences are moved, and whoever adds rows has those until it commits. Old workers are the
        # ones that must not wait, so their tables are locked last.
        numbered = [qualified(way.route.target) for way in ways if way.route.keeps_ids]
        try:
            for way in ways:
                way.noted.install(session)
            under_locks(
                session,
                workspace,
                "cut over",
                [*numbered, *(reconciler.staging.transform.source for reconciler in reconcilers)],
                drain=partial(sync.apply_changes, session, workspace, reconcilers),
                waiting=lambda: sync.lag(session, workspace).entries,
                work=partial(self._flip, reconcilers, second_window),
            )
        except Exception:
            self._undo_turn(ways)
            raise

    def _flip(self, reconcilers: Sequence[Reconciler], second_window: timedelta) -> None:
        for reconciler in reconcilers:
            sync.apply_last(self.session, self.workspace, reconciler)
            for problem in sync.problems(self.session, reconciler.staging):
                raise MigrationError(f"could not cut over: {problem}; everything is as before")
        if sync.lag(self.session, self.workspace).entries:
            raise NotDrained
        for reconciler in reconcilers:
            table = reconciler.staging.transform.table
            for route in table.routes:
                if route.keeps_ids:
                    number_on(self.session, table, route)
        self.journal.move(
            self.session,
            Phase.CUT_OVER,
            step="cut over",
            sources=frozenset({Phase.PARALLEL}),
            window=second_window,
        )

    def _undo_turn(self, ways: Sequence[WriteBack]) -> None:
        """Leave no trace of a cutover that did not come about."""
        if self.session.connection.closed:
            return  # running it again puts the same triggers on
        if self.journal.require(self.session, "cut over").phase is Phase.PARALLEL:
            for way in ways:
                way.noted.uninstall(self.session)

    def _finish(self) -> None:
        """Do what comes after the moment; it can be repeated."""
        session, workspace = self.session, self.workspace
        reconcilers = workspace.reconcilers(session, error_budget=None, truth="new")
        stagings = [reconciler.staging for reconciler in reconcilers]
        ways = ways_back(workspace, stagings)
        for way in ways:
            if way.noted.problems(session):
                way.noted.install(session)
        state = self.journal.require(session, "cut over", *REVERSED)
        released = release(session, workspace, stagings, state.since)
        if released:
            self.journal.note(session, "released", rows=released)
        carry_back(session, workspace, reconcilers, ways)
