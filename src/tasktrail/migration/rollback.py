"""The rollback: the legacy tables become the truth again, with everything that happened since the cutover."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from tasktrail.errors import GateClosed
from tasktrail.migration import sync
from tasktrail.migration.carrier import carry_back
from tasktrail.migration.difference import Difference, Way
from tasktrail.migration.drift import entries, settle
from tasktrail.migration.expressions import literal
from tasktrail.migration.locks import NotDrained, under_locks
from tasktrail.migration.names import key_text, qualified
from tasktrail.migration.numbering import number_apart, number_legacy_on
from tasktrail.migration.reconcile import HELD, Reconciler
from tasktrail.migration.release import NEVER, release
from tasktrail.migration.reverse import WriteBack, lost_on_the_way_back, ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.staging import WRITTEN_BACK
from tasktrail.migration.state import REVERSED, Phase
from tasktrail.migration.stragglers import apply_last_stragglers
from tasktrail.migration.triggers import NOT_NOTED
from tasktrail.migration.workspace import Workspace

BATCH: Final = 500
"""How many waiting rows one transaction makes mirrors of."""


class Rollback:
    """Makes the legacy tables the truth again."""

    def __init__(self, workspace: Workspace, session: Session) -> None:
        """Remember which ones, and over which connection."""
        self.workspace = workspace
        self.session = session
        self.journal = workspace.journal

    def losses(self) -> list[Difference]:
        """Return what the legacy tables cannot hold of what the new side did, after writing back the rest.

        Raises:
            WrongPhase: the new tables are not the truth.
        """
        self.journal.require(self.session, "roll back", *REVERSED)
        _, ways = self._carried()
        return self._losses(ways)

    def run(self, *, accept_losses: bool = False) -> bool:
        """Make the legacy tables the truth again. Interrupted, it is finished by running it again.

        Args:
            accept_losses: also when they cannot hold all of it; the rows stay as they are in the new tables.

        Returns:
            Whether they became it; not when they were it already.

        Raises:
            WrongPhase: there was no cutover.
            GateClosed: rows would come back as something else, or are being worked on.
            MigrationError: the locks were not had; everything is as before.
        """
        with self.session.alone(self.workspace.plan.name, "runner", doing="roll back"):
            state = self.journal.require(self.session, "roll back", Phase.PARALLEL, *REVERSED)
            if state.phase is Phase.PARALLEL:
                self._finish(ways_back(self.workspace, self.workspace.stagings(self.session)))
                return False
            reconcilers, ways = self._carried()
            losses = self._losses(ways)
            closed = [] if accept_losses or not losses else [_said(losses)]
            closed += self._being_worked_on(ways)
            if closed:
                raise GateClosed(self.workspace.plan.name, "roll back", closed)
            self._turn(reconcilers, ways, losses)
            self._finish(ways)
        return True

    def _finish(self, ways: Sequence[WriteBack]) -> None:
        """Do what comes after the moment; a cutover that was killed before its own left the same behind."""
        for way in ways:
            if way.noted.is_on(self.session):
                way.noted.uninstall(self.session)

    def _carried(self) -> tuple[list[Reconciler], list[WriteBack]]:
        reconcilers = self.workspace.reconcilers(self.session, error_budget=None, truth="new")
        ways = ways_back(self.workspace, [reconciler.staging for reconciler in reconcilers])
        carry_back(self.session, self.workspace, reconcilers, ways)
        return reconcilers, ways

    def _losses(self, ways: Sequence[WriteBack]) -> list[Difference]:
        changed = [loss for way in ways for loss in lost_on_the_way_back(self.session, way)]
        found = [entry.difference for entry in entries(self.session, self.workspace)]
        return [*(one for one in found if one.way == "unwritable"), *changed]

    def _being_worked_on(self, ways: Sequence[WriteBack]) -> Iterator[str]:
        for way in ways:
            target = qualified(way.route.target)
            count = self.session.value(
                f"SELECT count(*) FROM {target} t JOIN {way.staging.ledger} l ON {self._is_ours(way)} "
                "WHERE t.status = 'PROCESSING'"
            )
            if count:
                yield (
                    f"{count} rows of {way.route.target} are being worked on; stop the new workers, which "
                    "gives them back"
                )

    def _turn(
        self, reconcilers: Sequence[Reconciler], ways: Sequence[WriteBack], losses: Sequence[Difference]
    ) -> None:
        session, workspace = self.session, self.workspace
        for reconciler in reconcilers:
            reconciler.staging.create(session)
        for way in ways:
            way.create(session)
        sources = [reconciler.staging.transform.source for reconciler in reconcilers]
        try:
            under_locks(
                session,
                workspace,
                "roll back",
                # Old workers are the ones that must not wait, so their tables are locked last.
                [*(qualified(way.route.target) for way in ways), *sources],
                drain=partial(self._drain, reconcilers, ways),
                waiting=lambda: sync.lag(session, workspace, side=None).entries,
                work=partial(self._flip, reconcilers, ways, losses),
            )
        except Exception:
            if not session.connection.closed:  # running it, or the cutover, again does what is left to do
                release(session, workspace, [reconciler.staging for reconciler in reconcilers], NEVER)
            raise

    def _drain(self, reconcilers: Sequence[Reconciler], ways: Sequence[WriteBack]) -> None:
        """Do all that can be done before the locks, so that little is left to do under them.

        Of the jobs that wait only those are held whose time has come: should the locks not be had, they are
        due again, and nothing is lost. A time in the future would be.
        """
        carry_back(self.session, self.workspace, reconcilers, ways)
        for way in ways:
            taken = BATCH
            while taken == BATCH:
                with self.session.transaction():
                    self.session.run(NOT_NOTED)  # the legacy rows say PENDING as it is
                    taken = self._hold(way, "AND t.next_attempt_at <= now()", f"LIMIT {BATCH}")

    def _flip(
        self, reconcilers: Sequence[Reconciler], ways: Sequence[WriteBack], losses: Sequence[Difference]
    ) -> None:
        for reconciler in reconcilers:
            apply_last_stragglers(self.session, self.workspace, reconciler)
        for way in ways:
            newest = sync.newest_entry(self.session, self.workspace, "new", way.name)
            if newest is not None:
                way.within(self.session, way.waiting(self.session, newest), newest)
        if sync.lag(self.session, self.workspace, side=None).entries:
            raise NotDrained
        for reason in self._being_worked_on(ways):
            raise GateClosed(self.workspace.plan.name, "roll back", [reason])
        for way in ways:
            self._hold(way)
            if way.route.keeps_ids:
                number_legacy_on(self.session, way.staging.transform.table)
                number_apart(self.session, way.route)
        ways_since_the_cutover: tuple[Way, ...] = ("straggler", "unwritable")
        for way_found in ways_since_the_cutover:
            settle(self.session, self.workspace, way_found)
        self.journal.move(
            self.session,
            Phase.PARALLEL,
            step="roll back",
            sources=REVERSED,
            window=timedelta(),
            losses=len(losses),
        )

    def _hold(self, way: WriteBack, among: str = "", limit: str = "") -> int:
        """Make mirrors of what waits to be run: from the moment on old workers do that.

        Returns:
            How many rows were none yet.
        """
        target = qualified(way.route.target)
        held = " AND ".join(f"t.{name} IS NULL" for name in HELD)
        waits = f"t.status = 'PENDING' AND NOT ({held})"
        return self.session.run(
            f"UPDATE {target} t SET {', '.join(f'{name} = NULL' for name in HELD)} FROM ("
            f"SELECT t.id FROM {target} t JOIN {way.staging.ledger} l ON {self._is_ours(way)} "
            f"WHERE {waits} {among} {limit} FOR UPDATE OF t) w WHERE t.id = w.id AND {waits}"
        )

    def _is_ours(self, way: WriteBack) -> str:
        """Return SQL that is true for rows ``t`` of the target that a legacy row was written from.

        Their ledger rows are found by the key of the unit of work, which is indexed.
        """
        return (
            f"{way.staging.is_known} AND l.route = {literal(way.route.name)} AND l.target_id = t.id "
            f"AND l.target_key = {key_text('t', way.route.key)} AND l.target_key IS NOT NULL "
            f"AND l.reason = {literal(WRITTEN_BACK)}"
        )


def _said(losses: Sequence[Difference]) -> str:
    shown = "; ".join(
        f"{loss.key} {loss.what}" + (f" ({loss.expected} as {loss.found})" if loss.expected else "")
        for loss in losses[:3]
    )
    return (
        f"the legacy tables cannot hold {len(losses)} rows as they are: {shown}. See all with "
        "`tasktrail migrate rollback --check`, and go on with `--yes --accept-losses`"
    )
