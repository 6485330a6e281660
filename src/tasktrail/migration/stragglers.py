"""Old workers that still write after the cutover: their changes are caught, reported and applied by one rule.

The rule: where the new side has not worked on the unit, the legacy row is applied as before the cutover, and
what it leaves unfinished is run by the new side. Where it has, its row stays, and the legacy row is written
from it again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from tasktrail.migration.difference import Difference
from tasktrail.migration.drift import record
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import qualified
from tasktrail.migration.reconcile import Reconciler
from tasktrail.migration.release import release_staged
from tasktrail.migration.reverse import WriteBack, ways_back
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.sync import apply_changes, apply_last
from tasktrail.migration.workspace import Workspace


def apply_stragglers(
    session: Session,
    workspace: Workspace,
    reconcilers: Sequence[Reconciler],
    stop: threading.Event | None = None,
) -> int:
    """Apply what old workers wrote since, until the queue is empty or only holds what came meanwhile.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        reconcilers: of all tables, for the new side as the truth.
        stop: ends it after the transaction it is at.

    Returns:
        How many entries were applied.
    """
    return apply_changes(session, workspace, reconcilers, stop, follow_up=partial(_follow_up, workspace))


def apply_last_stragglers(session: Session, workspace: Workspace, reconciler: Reconciler) -> None:
    """Apply the last of what old workers wrote, within a transaction that keeps them from writing more.

    Args:
        session: within a snapshot that carries changes over, the working tables made and empty.
        workspace: the plan and the database.
        reconciler: of one table, for the new side as the truth.
    """
    if apply_last(session, workspace, reconciler):
        _follow_up(workspace, session, reconciler.staging)


def _follow_up(workspace: Workspace, session: Session, staging: Staging) -> None:
    """Do what a change of an old worker calls for, besides applying it."""
    _report(session, workspace, staging)
    release_staged(session, workspace, staging)
    for way in ways_back(workspace, [staging]):
        session.run(_write_back_again(way))


def _report(session: Session, workspace: Workspace, staging: Staging) -> None:
    """Report each row as drift, with what the old worker left there."""
    on = staging.joined.partition(" ON ")[2]
    rows = session.rows(
        f"SELECT k._source_key AS key, row_to_json(s)::text AS found FROM {staging.keys} k "
        f"LEFT JOIN {staging.transform.source} s ON {on} WHERE k._round = 0 ORDER BY 1"
    )
    said = partial(Difference, "straggler", staging.transform.table.name)
    differences = [
        said(row["key"], f"{'written' if row['found'] else 'deleted'} by an old worker", found=row["found"])
        for row in rows
    ]
    record(session, workspace, differences)


def _write_back_again(way: WriteBack) -> str:
    """Return SQL that has the legacy rows of the new side's own units, and of what it is to run, written."""
    staging, target = way.staging, qualified(way.route.target)
    return f"""
        INSERT INTO {way.workspace.own("tasktrail_changes")} (side, table_name, source_key, operation)
        SELECT DISTINCT 'new', {literal(way.name)}, l.target_key, 'U'
        FROM {staging.keys} k JOIN {staging.ledger} l ON l.source_key = k._source_key
            AND l.table_name = {literal(staging.transform.table.name)} AND l.route = {literal(way.route.name)}
        JOIN {target} t ON t.id = l.target_id
        WHERE l.deleted_at IS NOT NULL OR l.reason = 'paired' OR t.status IN ('PENDING', 'PROCESSING')
    """
