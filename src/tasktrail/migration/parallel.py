"""The parallel run: both systems live, the legacy tables are the truth, and both sides are compared."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tasktrail.errors import InvalidField, MigrationBusy
from tasktrail.migration import drift, sync
from tasktrail.migration.compare import Comparison, compare
from tasktrail.migration.drift import Pass
from tasktrail.migration.session import Session
from tasktrail.migration.state import MIRRORING, Phase
from tasktrail.migration.workspace import Workspace

logger = logging.getLogger(__name__)

WINDOW: Final = timedelta(days=7)
"""How long a parallel run lasts at least, when nothing else is said."""

COMPARABLE: Final = MIRRORING - {Phase.SYNCING}
"""Phases in which both sides can be compared: before, rows are still to be copied."""


@dataclass(frozen=True, slots=True)
class Report:
    """A pass of comparison, and what it found.

    Attributes:
        stored: the pass as it was stored.
        comparison: what was found.
        warnings: rules of the plan that failed, or have expired and would have explained something.
    """

    stored: Pass
    comparison: Comparison
    warnings: tuple[str, ...]


def begin(session: Session, workspace: Workspace, window: timedelta = WINDOW) -> bool:
    """Begin the parallel run.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        window: how long it is to last at least.

    Returns:
        Whether it was to be begun; one that runs already goes on, with its window.

    Raises:
        InvalidField: the window is negative.
        WrongPhase: the copy was not verified yet, or the parallel run is over.
        GateClosed: the plan is another than that of the last dry run.
    """
    if window < timedelta(0):
        raise InvalidField("window", str(window), "must not be negative")
    step = "begin the parallel run"
    state = workspace.journal.require(session, step, Phase.VERIFIED, Phase.PARALLEL)
    if state.phase is Phase.PARALLEL:
        return False
    workspace.journal.require_dry_run(state)
    with session.transaction():
        workspace.journal.move(
            session,
            Phase.PARALLEL,
            step=step,
            sources=frozenset({Phase.VERIFIED}),
            window=window,
            window_days=window / timedelta(days=1),
        )
    return True


def stop(session: Session, workspace: Workspace) -> None:
    """Stop the parallel run; the new tables go on following, and drift that was found stays listed.

    Raises:
        WrongPhase: there is none.
    """
    with session.transaction():
        workspace.journal.move(
            session, Phase.VERIFIED, step="stop the parallel run", sources=frozenset({Phase.PARALLEL})
        )


def run_pass(session: Session, workspace: Workspace) -> Report:
    """Apply what is in the queue, compare both sides, and store what was found.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.

    Raises:
        WrongPhase: there is nothing to compare, or the phase changed meanwhile; nothing was stored.
        MigrationBusy: somebody else compares.
    """
    workspace.journal.require(session, "compare", *COMPARABLE)
    with session.alone(workspace.plan.name, "comparison", doing="compare"):
        return _run_pass(session, workspace)


def run_pass_if_due(workspace: Workspace, every: timedelta) -> Report | None:
    """Run a pass in the parallel run when the last one began long enough ago, over a connection of its own.

    However many processes ask, one of them compares.

    Args:
        workspace: the plan and the database.
        every: time from the beginning of a pass to that of the next.

    Returns:
        What was found; None when no pass was due.
    """
    with workspace.session("migrate compare") as session:
        if not _is_due(session, workspace, every):
            return None
        try:
            with session.alone(workspace.plan.name, "comparison", doing="compare", patience=0):
                if not _is_due(session, workspace, every):
                    return None
                report = _run_pass(session, workspace)
        except MigrationBusy:
            return None
    stored = report.stored
    level = logging.INFO if stored.is_clean else logging.ERROR
    logger.log(
        level,
        "%s: %d rows looked at, %d mismatches, %d known, %d healed%s",
        workspace.plan.name,
        stored.compared,
        stored.mismatches,
        stored.known,
        stored.healed,
        "" if stored.is_clean else "; see `tasktrail migrate drift`",
    )
    for warning in report.warnings:
        logger.warning("%s: %s", workspace.plan.name, warning)
    return report


def _is_due(session: Session, workspace: Workspace, every: timedelta) -> bool:
    state = workspace.journal.read(session)
    if state is None or state.phase is not Phase.PARALLEL:
        return False
    return not session.value(
        f"SELECT EXISTS (SELECT FROM {workspace.own('tasktrail_comparisons')} WHERE migration = %(name)s "
        "AND started_at >= %(since)s AND started_at > clock_timestamp() - %(every)s::interval)",
        name=workspace.plan.name,
        since=state.since,
        every=every,
    )


def _run_pass(session: Session, workspace: Workspace) -> Report:
    reconcilers = workspace.reconcilers(session, error_budget=None)
    sync.apply_changes(session, workspace, reconcilers)
    comparison = compare(session, workspace, [reconciler.staging for reconciler in reconcilers])
    with session.transaction():
        # What was seen before a cutover is not true after it.
        workspace.journal.hold(session, "compare", *COMPARABLE)
        stored, warnings = drift.store(session, workspace, comparison)
    return Report(stored, comparison, warnings)
