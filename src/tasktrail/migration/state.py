"""How far a migration has come: its phases, the only ways between them, and a log of who did what.

``TRANSITIONS`` is the only list. A phase changes by one guarded statement, together with what belongs to
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from tasktrail.access.audit import whoever
from tasktrail.errors import GateClosed, WrongPhase
from tasktrail.migration.names import in_schema
from tasktrail.migration.plan import MigrationPlan
from tasktrail.migration.session import Row, Session


class Phase(StrEnum):
    """How far a migration has come, stored as its name."""

    PLANNED = "planned"
    """The plan fits the database; nothing was made yet."""
    EXPANDED = "expanded"
    """The new tables are ready, and mirrored rows are safe from maintenance."""
    SYNCING = "syncing"
    """Triggers note every change of the legacy tables; rows that are there already are being copied."""
    BACKFILLED = "backfilled"
    """Every legacy row is in the ledger, or its change is in the queue."""
    VERIFIED = "verified"
    """The copy was found right in three ways."""
    PARALLEL = "parallel"
    """Both systems run; the legacy tables are the truth, and the new ones are compared on a schedule."""
    CUT_OVER = "cut_over"
    """The new tables are the truth, and the legacy ones follow."""
    ARCHIVED = "archived"
    """The legacy tables have copies from which they were restored for a test."""
    DROPPED = "dropped"
    """The legacy tables are gone."""


TRANSITIONS: Final[Mapping[tuple[Phase, Phase], str]] = MappingProxyType(
    {
        (Phase.PLANNED, Phase.EXPANDED): "the new tables were found ready",
        (Phase.EXPANDED, Phase.SYNCING): "triggers were put on the legacy tables",
        (Phase.SYNCING, Phase.BACKFILLED): "the last chunk was copied",
        (Phase.BACKFILLED, Phase.VERIFIED): "the copy was found right",
        (Phase.VERIFIED, Phase.PARALLEL): "the parallel run began",
        (Phase.PARALLEL, Phase.CUT_OVER): "the new tables became the truth",
        (Phase.CUT_OVER, Phase.ARCHIVED): "the legacy tables were archived, and restored for a test",
        (Phase.ARCHIVED, Phase.DROPPED): "the legacy tables were dropped",
        (Phase.EXPANDED, Phase.PLANNED): "undone: maintenance keeps off no rows any more",
        (Phase.SYNCING, Phase.EXPANDED): "undone: triggers and copy were taken away",
        (Phase.BACKFILLED, Phase.SYNCING): "undone: the copy was thrown away, to be made again",
        (Phase.VERIFIED, Phase.BACKFILLED): "undone: the verdict is to be found again",
        (Phase.PARALLEL, Phase.VERIFIED): "undone: the parallel run was stopped",
        (Phase.CUT_OVER, Phase.PARALLEL): "rolled back: the legacy tables are the truth again",
        (Phase.ARCHIVED, Phase.PARALLEL): "rolled back: the legacy tables are the truth again",
        (Phase.ARCHIVED, Phase.CUT_OVER): "undone: the archives were thrown away",
        (Phase.DROPPED, Phase.CUT_OVER): "restored: the legacy tables are there again, and follow",
    }
)

NEXT_COMMAND: Final[Mapping[Phase, str]] = MappingProxyType(
    {
        Phase.PLANNED: "tasktrail migrate expand",
        Phase.EXPANDED: "tasktrail migrate sync",
        Phase.SYNCING: "tasktrail migrate backfill",
        Phase.BACKFILLED: "tasktrail migrate verify",
        Phase.VERIFIED: "tasktrail migrate parallel",
        Phase.PARALLEL: "tasktrail migrate cutover --yes",
        Phase.CUT_OVER: "tasktrail migrate archive",
        Phase.ARCHIVED: "tasktrail migrate drop --yes",
        Phase.DROPPED: "tasktrail migrate status",
    }
)
"""What brings a migration on from each phase."""

MIRRORING: Final = frozenset({Phase.SYNCING, Phase.BACKFILLED, Phase.VERIFIED, Phase.PARALLEL})
"""Phases in which the legacy tables are the truth and the new ones follow."""

REVERSED: Final = frozenset({Phase.CUT_OVER, Phase.ARCHIVED})
"""Phases in which the new tables are the truth and the legacy ones follow."""

HOLDING: Final = MIRRORING | REVERSED | {Phase.EXPANDED}
"""Phases in which maintenance prunes no row of the domains concerned."""


@dataclass(frozen=True, slots=True)
class State:
    """A migration as the database has it.

    Attributes:
        phase: how far it has come.
        since: since when.
        fingerprint: of the plan whose dry run was the last.
        is_paused: whether somebody asked the copying to pause.
        window_ends_at: until when the present phase is to last at least; None when nothing was said.
        is_window_over: whether that moment has passed, by the server's clock.
    """

    phase: Phase
    since: datetime
    fingerprint: str | None
    is_paused: bool
    window_ends_at: datetime | None
    is_window_over: bool


class Journal:
    """Reads and changes the state of one migration."""

    def __init__(self, plan: MigrationPlan, schema: str | None) -> None:
        """Remember which one, and where the library's own tables are."""
        self.plan = plan
        self._migrations = in_schema(schema, "tasktrail_migrations")
        self._events = in_schema(schema, "tasktrail_migration_events")

    def read(self, session: Session) -> State | None:
        """Return the state; None when there is no such migration yet."""
        row = session.row(
            "SELECT phase, phase_since, fingerprint, is_paused, window_ends_at, "
            "coalesce(window_ends_at <= clock_timestamp(), TRUE) AS is_window_over "
            f"FROM {self._migrations} WHERE name = %(name)s",
            name=self.plan.name,
        )
        if row is None:
            return None
        row["phase"] = Phase(row["phase"])
        row["since"] = row.pop("phase_since")
        return State(**row)

    def require(self, session: Session, step: str, *phases: Phase) -> State:
        """Return the state if the migration is in one of some phases.

        Args:
            session: a connection.
            step: what is to be done, in words.
            *phases: where that may be done; any, when none is named.

        Raises:
            WrongPhase: it is in none of them; the message has the command to go on with.
        """
        state = self.read(session)
        if state is None:
            raise WrongPhase(self.plan.name, step, "not planned yet", "tasktrail migrate plan")
        if phases and state.phase not in phases:
            raise WrongPhase(self.plan.name, step, state.phase, self._way(state.phase, phases))
        return state

    def hold(self, session: Session, step: str, *phases: Phase) -> State:
        """Like ``require``, and have nobody change the phase until the transaction ends."""
        session.run(f"SELECT FROM {self._migrations} WHERE name = %(name)s FOR SHARE", name=self.plan.name)
        return self.require(session, step, *phases)

    def require_dry_run(self, state: State) -> None:
        """Refuse to go on with another plan than that of the last dry run.

        Raises:
            GateClosed: the plan was changed since.
        """
        if state.fingerprint != self.plan.fingerprint:
            reason = (
                "the plan was changed since its last dry run; look at it again with `tasktrail migrate plan`"
            )
            raise GateClosed(self.plan.name, "the next step", [reason])

    def begin(self, session: Session) -> None:
        """Make a migration PLANNED that was not, and remember the plan that was just tried in a dry run."""
        domains = [route.domain for table in self.plan.tables for route in table.routes]
        session.run(
            f"INSERT INTO {self._migrations} AS m (name, phase, fingerprint, domains) "
            "VALUES (%(name)s, 'planned', %(fingerprint)s, %(domains)s) "
            "ON CONFLICT (name) DO UPDATE SET "
            "fingerprint = excluded.fingerprint, domains = excluded.domains",
            name=self.plan.name,
            fingerprint=self.plan.fingerprint,
            domains=domains,
        )

    def move(
        self,
        session: Session,
        target: Phase,
        *,
        step: str,
        sources: frozenset[Phase] | None = None,
        window: timedelta | None = None,
        keep_window: bool = False,
        **details: Any,
    ) -> None:
        """Change the phase, if it is one from which that is allowed, and say so in the log.

        Args:
            session: within the transaction that the change belongs to.
            target: the new phase.
            step: what is being done, in words.
            sources: the phases from which; by default those that TRANSITIONS leads from.
            window: how long the new phase is to last at least.
            keep_window: let the new phase last as long as the present one was to, instead.
            **details: for the log.

        Raises:
            WrongPhase: somebody else changed it meanwhile.
        """
        allowed = sources or frozenset(source for source, reached in TRANSITIONS if reached is target)
        was = session.value(
            f"UPDATE {self._migrations} m SET phase = %(target)s, phase_since = clock_timestamp(), "
            "is_holding = %(holds)s, window_ends_at = CASE WHEN %(keep)s THEN m.window_ends_at "
            "ELSE clock_timestamp() + %(window)s::interval END "
            f"FROM (SELECT phase FROM {self._migrations} WHERE name = "
            "%(name)s FOR UPDATE) o "
            "WHERE m.name = %(name)s AND m.phase = ANY(%(allowed)s) RETURNING o.phase",
            target=target.value,
            holds=target in HOLDING,
            window=window,
            keep=keep_window,
            name=self.plan.name,
            allowed=[phase.value for phase in allowed],
        )
        if was is None:
            state = self.require(session, step)
            raise WrongPhase(self.plan.name, step, state.phase, NEXT_COMMAND[state.phase])
        reason = TRANSITIONS[Phase(was), target]
        self.note(session, f"{was} -> {target}: {reason}", **details)

    def pause(self, session: Session, *, paused: bool) -> None:
        """Ask the copying to pause after its chunk, or allow it to go on."""
        session.run(
            f"UPDATE {self._migrations} SET is_paused = %(paused)s WHERE name = %(name)s",
            name=self.plan.name,
            paused=paused,
        )
        self.note(session, "paused" if paused else "resumed")

    def note(self, session: Session, what: str, **details: Any) -> None:
        """Write a line of the log: who did what."""
        session.run(
            f"INSERT INTO {self._events} (migration, who, what, details) "
            "VALUES (%(name)s, %(who)s, %(what)s, %(details)s::jsonb)",
            name=self.plan.name,
            who=whoever(),
            what=what,
            details=json.dumps(details, default=str),
        )

    def events(self, session: Session, limit: int = 20) -> list[Row]:
        """Return the newest lines of the log, newest first."""
        return session.rows(
            f"SELECT happened_at, who, what, details FROM {self._events} WHERE migration = %(name)s "
            "ORDER BY id DESC LIMIT %(limit)s",
            name=self.plan.name,
            limit=limit,
        )

    def _way(self, phase: Phase, wanted: tuple[Phase, ...]) -> str:
        """Return the command to go on with: forward to a step still to come, else a look at the status."""
        order = list(Phase)
        is_past = all(order.index(phase) > order.index(one) for one in wanted)
        return "tasktrail migrate status" if is_past else NEXT_COMMAND[phase]
