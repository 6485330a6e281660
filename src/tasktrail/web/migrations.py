"""How far a migration has come, as pages and API show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from psycopg.errors import QueryCanceled

from tasktrail.celery import Trail
from tasktrail.errors import PlanRefused, ReadTimeout, WrongPhase
from tasktrail.guards import table_of
from tasktrail.masking import MASK, mask_text
from tasktrail.migration import copying, drift, sync
from tasktrail.migration.account import Account
from tasktrail.migration.copying import TableProgress
from tasktrail.migration.drift import Entry, Pass
from tasktrail.migration.plan import MigrationPlan
from tasktrail.migration.quarantine import Heap, Quarantine
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import MIRRORING, NEXT_COMMAND, Phase, State
from tasktrail.migration.steps import troubles
from tasktrail.migration.sync import Lag
from tasktrail.migration.workspace import Workspace

TIMEOUT: Final = 20.0
"""Longest time one statement may take here, in seconds; very large tables are for the command line."""

MOST_DRIFT: Final = 100
"""So many differences are listed."""

MOST_EVENTS: Final = 20

OF_THE_LEDGER: Final = frozenset({"disposition", "inferred"})
"""What else a difference may be about, besides columns of the target and of the legacy table."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A migration as it stands.

    Attributes:
        name: the plan's name.
        now: by the server's clock.
        state: how far it has come; ``None`` when nothing was planned yet.
        command: what brings it on.
        lag: how far one side is behind the other.
        troubles: what is not as the phase promises.
        tables: how far the copying has come.
        heaps: what is quarantined.
        drift: differences that are open, those that no rule explains first.
        passes: the last comparisons, the newest first.
        events: who did what, the newest first.
    """

    name: str
    now: datetime
    state: State | None
    command: str
    lag: Lag
    troubles: tuple[str, ...]
    tables: tuple[TableProgress, ...]
    heaps: tuple[Heap, ...]
    drift: tuple[Entry, ...]
    passes: tuple[Pass, ...]
    events: tuple[dict[str, Any], ...]

    @property
    def phase(self) -> Phase | None:
        """How far it has come."""
        return self.state.phase if self.state else None

    @property
    def can_redrive(self) -> bool:
        """Whether quarantined rows can be driven through the rules again."""
        return self.phase in MIRRORING


@contextmanager
def opened(
    trail: Trail, plan: MigrationPlan, *, patient: bool = False
) -> Iterator[tuple[Workspace, Session]]:
    """Open a connection for a look at a migration, or for a step of it.

    Args:
        trail: what the application is about.
        plan: of the migration.
        patient: whether statements may take what they take.

    Raises:
        ReadTimeout: a statement took too long.
        SchemaOutdated: the tables for migrations are missing.
        DatabaseUnavailable: the server cannot be reached.
    """
    workspace = Workspace(plan, trail.engines, trail.schema)
    with workspace.session("web") as session:
        if not patient:
            session.run(f"SET statement_timeout = '{TIMEOUT:g}s'")
        try:
            yield workspace, session
        except QueryCanceled as error:
            raise ReadTimeout(TIMEOUT) from error


def look(trail: Trail, plan: MigrationPlan) -> Seen:
    """Look how far a migration has come.

    Args:
        trail: what the application is about.
        plan: of the migration.

    Raises:
        SchemaOutdated: the tables for migrations are missing.
        DatabaseUnavailable: the server cannot be reached.
    """
    with opened(trail, plan) as (workspace, session):
        state = workspace.journal.read(session)
        return Seen(
            name=plan.name,
            now=session.value("SELECT clock_timestamp()"),
            state=state,
            command=NEXT_COMMAND[state.phase] if state else "tasktrail migrate plan",
            lag=sync.lag(session, workspace, side=None),
            troubles=tuple(troubles(session, workspace)),
            tables=tuple(copying.progress(session, workspace)),
            heaps=tuple(Quarantine(workspace).heaps(session)),
            drift=tuple(
                _concealed(trail, plan, entry)
                for entry in drift.entries(session, workspace, limit=MOST_DRIFT)
            ),
            passes=tuple(drift.passes(session, workspace)),
            events=tuple(workspace.journal.events(session, MOST_EVENTS)),
        )


def account(trail: Trail, plan: MigrationPlan) -> Account | None:
    """Take the account of a migration; ``None`` while there is none.

    Raises:
        SchemaOutdated: the tables for migrations are missing.
        DatabaseUnavailable: the server cannot be reached.
    """
    with opened(trail, plan) as (workspace, session):
        if workspace.journal.read(session) is None:
            return None
        try:
            return Runner(workspace, session).account()
        except (PlanRefused, WrongPhase):  # the page says what does not fit, as the troubles of the phase
            return None


def quarantined(trail: Trail, plan: MigrationPlan, table: str, key: str) -> dict[str, Any]:
    """Return what is known of one legacy row, its secrets masked; all of it where a column is sensitive.

    Raises:
        ConfigurationError: the ledger has no such row.
    """
    with opened(trail, plan) as (workspace, session):
        row = Quarantine(workspace).show(session, table, key)
    if row["raw"] is not None and _open_columns(trail, plan, table) is not None:
        row["raw"] = MASK  # nobody knows which of its columns becomes the sensitive one
    return {
        name: mask_text(content) if isinstance(content, str) else content for name, content in row.items()
    }


def _open_columns(trail: Trail, plan: MigrationPlan, table: str) -> frozenset[str] | None:
    """Return the columns of a table's targets that everybody may see; ``None`` where none is sensitive."""
    targets = {route.target.rpartition(".")[2] for route in plan.table(table).routes}
    models = [domain.model for domain in trail.registry if table_of(domain.model).name in targets]
    sensitive = {name for model in models for name in model.__tracking__.sensitive}
    if not sensitive:
        return None
    return OF_THE_LEDGER | {column.key for model in models for column in table_of(model).columns} - sensitive


def _concealed(trail: Trail, plan: MigrationPlan, entry: Entry) -> Entry:
    """Return a difference without the values of columns that are declared sensitive."""
    one = entry.difference
    seen = _open_columns(trail, plan, one.table)
    if seen is None or not one.column or seen.issuperset(one.column.split(", ")):
        return entry
    expected, found = (None if text is None else MASK for text in (one.expected, one.found))
    return replace(entry, difference=replace(one, expected=expected, found=found))


def redrive(trail: Trail, plan: MigrationPlan, table: str, reason: str) -> dict[str, int]:
    """Drive the quarantined rows of a table with a reason through the rules again.

    Returns:
        How many were driven, and how many of them are quarantined no more.

    Raises:
        WrongPhase: legacy is not the truth any more, or nothing was copied yet.
    """
    with opened(trail, plan, patient=True) as (workspace, session):
        workspace.journal.require(session, "redrive", *MIRRORING)
        reconcilers = workspace.reconcilers(session)
        return Quarantine(workspace).redrive(session, reconcilers, table, reason)
