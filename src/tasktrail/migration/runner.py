"""The steps of a migration, from phase to phase, each with its way back.

A step that is done already changes nothing; one out of order is refused, with the command to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasktrail.migration import account, sync
from tasktrail.migration.account import Account
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.copies import as_archived
from tasktrail.migration.ddl import ensure_unique_index
from tasktrail.migration.dry_run import Prediction, differences, predict
from tasktrail.migration.locks import all_locked
from tasktrail.migration.names import qualified
from tasktrail.migration.numbering import number_apart
from tasktrail.migration.reverse import ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.state import MIRRORING, REVERSED, Phase, State
from tasktrail.migration.verify import Verdict, verify_account, verify_checksums
from tasktrail.migration.witness import verify_twins
from tasktrail.migration.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Planned:
    """What the dry run found.

    Attributes:
        prediction: where every row would be.
        surprises: where the real account is not as predicted, once rows were copied.
    """

    prediction: Prediction
    surprises: tuple[str, ...]


class Runner:
    """Takes a migration from phase to phase."""

    def __init__(self, workspace: Workspace, session: Session) -> None:
        """Remember what to migrate, and over which connection."""
        self.workspace = workspace
        self.session = session
        self.journal = workspace.journal

    def plan(self) -> Planned:
        """Compare the plan with the database, run it dry, and remember its fingerprint.

        Raises:
            PlanRefused: it does not fit.
        """
        state = self.journal.read(self.session)
        prediction = predict(self.session, self.workspace)
        surprises: tuple[str, ...] = ()
        if state is not None and state.phase in MIRRORING - {Phase.SYNCING}:
            surprises = tuple(differences(prediction.account, self.account()))
        with self.session.transaction():
            self.journal.begin(self.session)
            self.journal.note(
                self.session,
                "dry run",
                fingerprint=self.workspace.plan.fingerprint,
                **_counts(prediction.account),
            )
        return Planned(prediction, surprises)

    def expand(self) -> bool:
        """Make sure the new tables are ready, and have maintenance keep off mirrored rows.

        Returns:
            Whether anything was to be done.

        Raises:
            GateClosed: the plan is another than that of the last dry run.
        """
        if self._is_past("expand", Phase.PLANNED):
            return False
        stagings = self.workspace.stagings(self.session)
        for staging in stagings:
            for route in staging.transform.table.routes:
                ensure_unique_index(self.session, route.target, route.key, f"uq_{route.domain}_migrated")
        with self.session.transaction():
            for staging in stagings:
                for route in staging.transform.table.routes:
                    if route.keeps_ids:
                        number_apart(self.session, route)
            self.journal.move(self.session, Phase.EXPANDED, step="expand")
        return True

    def undo_expand(self) -> None:
        """Have maintenance look after all rows again."""
        with self.session.transaction():
            self.journal.move(
                self.session, Phase.PLANNED, step="undo expand", sources=frozenset({Phase.EXPANDED})
            )

    def sync(self) -> bool:
        """Put the triggers on: on the legacy tables, and once they are the truth on the new ones, too.

        Returns:
            Whether triggers were to be put on; a trigger that was lost or disabled is put on again.

        Raises:
            MigrationError: a lock was not had; the tables that have their triggers keep them.
        """
        self._is_past("sync", Phase.EXPANDED, only=MIRRORING | REVERSED)
        stagings = self.workspace.stagings(self.session)
        missing = [staging for staging in stagings if sync.problems(self.session, staging)]
        for staging in missing:
            sync.install(self.session, self.workspace, staging)
        phase = self.journal.require(self.session, "sync").phase
        back = ways_back(self.workspace, stagings) if phase in REVERSED else []
        lost = [way for way in back if way.noted.problems(self.session)]
        for way in lost:
            way.noted.install(self.session)
        account.create_view(self.session, self.workspace, stagings)
        if phase is Phase.EXPANDED:
            with self.session.transaction():
                self.journal.move(self.session, Phase.SYNCING, step="sync")
        return bool(missing or lost)

    def undo_sync(self) -> None:
        """Take the triggers off, and throw the copy away.

        Raises:
            WrongPhase: the copy is finished; undo that first.
        """
        self.journal.require(self.session, "undo sync", Phase.SYNCING)
        stagings = self.workspace.stagings(self.session)
        for staging in stagings:
            sync.uninstall(self.session, staging)
        account.drop_view(self.session, self.workspace)
        with all_locked(self.session, self.workspace), self.session.transaction():
            self._forget_copy(stagings)
            self.session.run(
                f"DELETE FROM {self.workspace.own('tasktrail_migration_tables')} WHERE migration = %(name)s",
                name=self.workspace.plan.name,
            )
            self.journal.move(
                self.session, Phase.EXPANDED, step="undo sync", sources=frozenset({Phase.SYNCING})
            )

    def backfill(self, backfill: Backfill) -> None:
        """Copy the rows that are there already.

        Raises:
            GateClosed: the plan is another than that of the last dry run.
        """
        state = self.journal.require(self.session, "copy rows", *MIRRORING)
        self._require_dry_run(state)
        backfill.run(self.session)

    def undo_backfill(self) -> None:
        """Throw the copy away, to make it again; what the new side did itself stays."""
        stagings = self.workspace.stagings(self.session)
        with self.session.alone(self.workspace.plan.name, "runner", doing="undo the copy"):
            state = self.journal.require(
                self.session, "undo the copy", Phase.SYNCING, Phase.BACKFILLED, Phase.VERIFIED
            )
            with all_locked(self.session, self.workspace), self.session.transaction():
                self._forget_copy(stagings)
                self.session.run(
                    f"UPDATE {self.workspace.own('tasktrail_migration_tables')} SET cursor = NULL, "
                    "chunk = 0, "
                    "rows_done = 0, errors = 0, started_at = NULL, finished_at = NULL WHERE "
                    "migration = %(name)s",
                    name=self.workspace.plan.name,
                )
                for staging in stagings:
                    sync.move_bound(self.session, self.workspace, staging)
                if state.phase is Phase.VERIFIED:
                    self._step_back(Phase.VERIFIED, Phase.BACKFILLED)
                if state.phase is not Phase.SYNCING:
                    self._step_back(Phase.BACKFILLED, Phase.SYNCING)

    def verify(self) -> list[Verdict]:
        """Verify the copy in three ways, at one moment; a clean verdict is remembered.

        Raises:
            WrongPhase: nothing was copied yet.
        """
        self.journal.require(self.session, "verify", *(MIRRORING - {Phase.SYNCING}))
        reconcilers = self.workspace.reconcilers(self.session, error_budget=None)
        sync.apply_changes(self.session, self.workspace, reconcilers)
        stagings = [reconciler.staging for reconciler in reconcilers]
        ways: list[Callable[[Session, Workspace, list[Staging]], Verdict]] = [
            verify_account,
            verify_checksums,
            verify_twins,
        ]
        with self.session.snapshot(read_only=True):
            verdicts = [way(self.session, self.workspace, stagings) for way in ways]
        found = {verdict.way: verdict.differing for verdict in verdicts}
        self.journal.note(self.session, "verified", **found)
        if not any(found.values()):
            state = self.journal.require(self.session, "verify")
            if state.phase is Phase.BACKFILLED:
                with self.session.transaction():
                    self.journal.move(self.session, Phase.VERIFIED, step="verify")
        elif self.journal.require(self.session, "verify").phase is Phase.VERIFIED:
            with self.session.transaction():
                self.journal.move(
                    self.session, Phase.BACKFILLED, step="verify", sources=frozenset({Phase.VERIFIED})
                )
        return verdicts

    def account(self) -> Account:
        """Take the account; once the legacy tables were dropped, of their archives."""
        state = self.journal.read(self.session)
        is_dropped = state is not None and state.phase is Phase.DROPPED
        workspace = as_archived(self.workspace) if is_dropped else self.workspace
        return account.take(self.session, workspace, workspace.stagings(self.session))

    def _is_past(self, step: str, before: Phase, only: frozenset[Phase] | None = None) -> bool:
        """Return whether a step is done; refuse it where it cannot be done at all, or with another plan."""
        after = only if only is not None else frozenset(Phase) - {before}
        state = self.journal.require(self.session, step, before, *after)
        if state.phase is before:
            self._require_dry_run(state)
            return False
        return True

    def _step_back(self, source: Phase, target: Phase) -> None:
        self.journal.move(self.session, target, step="undo the copy", sources=frozenset({source}))

    def _require_dry_run(self, state: State) -> None:
        self.journal.require_dry_run(state)

    def _forget_copy(self, stagings: list[Staging]) -> None:
        """Delete what was mirrored, and what is known of the legacy rows; tombstones stay."""
        for staging in stagings:
            for route in staging.transform.table.routes:
                self.session.run(
                    f"DELETE FROM {qualified(route.target)} t USING {staging.ledger} l WHERE "
                    f"{staging.is_known} "
                    f"AND l.route = %(route)s AND l.disposition = 'migrated' AND l.target_id = t.id "
                    "AND t.celery_task_id IS NULL AND t.worker IS NULL",
                    route=route.name,
                )
            raw = self.workspace.own("tasktrail_raw")
            self.session.run(
                f"DELETE FROM {raw} w USING {staging.ledger} l WHERE {staging.is_known} "
                "AND w.table_name = l.table_name AND w.source_key = l.source_key"
            )
            self.session.run(f"DELETE FROM {staging.ledger} l WHERE {staging.is_known}")


def _counts(found: Account) -> dict[str, int]:
    return {fate: found.total(fate) for fate in ("migrated", "consolidated", "quarantined", "archived")}
