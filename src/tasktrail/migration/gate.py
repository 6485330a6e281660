"""What must hold before the new tables become the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tasktrail.migration import account, sync
from tasktrail.migration.drift import clean_passes
from tasktrail.migration.inspection import dependents
from tasktrail.migration.names import qualified
from tasktrail.migration.quarantine import Quarantine
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.state import State
from tasktrail.migration.workspace import Workspace

OWNED: Final = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%(table)s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What must hold before the cutover, where that is a matter of degree.

    Attributes:
        clean_passes: so many comparisons in a row found nothing.
        entries: at most so many changes are to be carried over.
        seconds: the oldest of them is at most that old.
        second_window: how long the legacy tables stay afterwards, at least.
    """

    clean_passes: int = 3
    entries: int = 100_000
    seconds: float = 60.0
    second_window: timedelta = timedelta(days=7)


def reasons(session: Session, workspace: Workspace, state: State, conditions: Conditions) -> list[str]:
    """Return why there can be no cutover now, each with what to do; empty when there can.

    Args:
        session: a connection.
        workspace: the plan and the database.
        state: of the migration, in its parallel run.
        conditions: what must hold.
    """
    stagings = workspace.stagings(session)
    return [
        *_of_run(session, workspace, state, conditions),
        *(reason for staging in stagings for reason in _of_table(session, staging)),
        *_of_rows(session, workspace, stagings),
    ]


def _of_run(session: Session, workspace: Workspace, state: State, conditions: Conditions) -> Iterator[str]:
    if state.fingerprint != workspace.plan.fingerprint:
        yield "the plan was changed since its last dry run; look at it with `tasktrail migrate plan`"
    if not state.is_window_over:
        yield f"the window of the parallel run is open until {state.window_ends_at:%Y-%m-%d %H:%M:%S %Z}"
    clean = clean_passes(session, workspace, state.since)
    if clean < conditions.clean_passes:
        yield (
            f"{clean} clean comparisons in a row, {conditions.clean_passes} are needed; run "
            "`tasktrail migrate compare`, and see `tasktrail migrate drift`"
        )
    lag = sync.lag(session, workspace)
    if lag.entries > conditions.entries or lag.seconds > conditions.seconds:
        yield (
            f"{lag.entries} changes are to be applied, the oldest is {lag.seconds:.0f} s old; does "
            "`tasktrail migrate sync --follow` run?"
        )


def _of_table(session: Session, staging: Staging) -> Iterator[str]:
    table = staging.transform.table
    for problem in sync.problems(session, staging):
        yield f"{problem}; run `tasktrail migrate sync`, then `tasktrail migrate backfill`"
    for dependent in dependents(session, table.source):
        yield f"{dependent} points at {table.source}; drop it first"
    for route in table.routes:
        if not session.value(OWNED, table=qualified(route.target)):
            yield f"this role does not own {route.target}, which triggers on it take; run as its owner"
        if route.reverse is None:
            yield f"the plan has no way back for {table.name}.{route.name}"


def _of_rows(session: Session, workspace: Workspace, stagings: list[Staging]) -> Iterator[str]:
    taken = account.take(session, workspace, stagings)
    for name in taken.tables:
        if taken.total(account.UNACCOUNTED, account.GHOST, table=name):
            yield f"the account is not balanced: {taken.equation(name)}; run `tasktrail migrate backfill`"
    for heap in Quarantine(workspace).heaps(session):
        if heap.rows > heap.accepted:
            yield (
                f"{heap.rows - heap.accepted} rows of {heap.table} are quarantined as {heap.reason}, e.g. "
                f"{heap.example}; mend the rule and run `tasktrail migrate quarantine redrive`, or "
                "`tasktrail migrate quarantine accept`"
            )
