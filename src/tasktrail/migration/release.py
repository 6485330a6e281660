"""Unfinished rows at the moment at which the new tables become the truth: run by the new side, or given up.

Until then they are mirrors that nothing dispatches or rescues. Afterwards nobody else will finish them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tasktrail.migration.expressions import literal
from tasktrail.migration.names import key_text, qualified
from tasktrail.migration.plan import Route
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.workspace import Workspace

ABANDONED_AFTER: Final = "24 hours"
"""Untouched for longer than that before the cutover, an unfinished row is given up (LEGACY.md)."""

ABANDONED: Final = "abandoned before migration"

NEVER: Final = "-infinity"
"""As the moment of the cutover: no row was untouched for long before it, so none is given up."""

BATCH: Final = 5_000


def release(
    session: Session, workspace: Workspace, stagings: Sequence[Staging], moment: datetime | str
) -> int:
    """Make unfinished mirrored rows due, or FAILED where nobody touched them for long.

    Args:
        session: outside any transaction; what it does is noted, so that the legacy tables follow.
        workspace: the plan and the database.
        stagings: of the tables.
        moment: of the cutover, from which untouched rows are measured; or ``NEVER``.

    Returns:
        How many rows there were; none when it is run again.
    """
    released = 0
    for staging in stagings:
        for route in staging.transform.table.routes:
            while taken := session.run(_release(workspace, staging, route, f"LIMIT {BATCH}"), moment=moment):
                released += taken
    return released


def release_staged(session: Session, workspace: Workspace, staging: Staging) -> int:
    """Make the unfinished rows of one reconciliation due, which an old worker wrote after the cutover.

    None of them is given up, however old it says it is: it was touched just now.

    Args:
        session: within the transaction of the reconciliation.
        workspace: the plan and the database.
        staging: of the table, its working tables filled.

    Returns:
        How many rows there were.
    """
    among = f"AND l.source_key IN (SELECT _source_key FROM {staging.keys})"
    return sum(
        session.run(_release(workspace, staging, route, "", among), moment=NEVER)
        for route in staging.transform.table.routes
    )


def count_unreleased(session: Session, workspace: Workspace, stagings: Sequence[Staging]) -> int:
    """Return how many mirrored rows are unfinished; after a cutover nobody would run them.

    Args:
        session: a connection.
        workspace: the plan and the database.
        stagings: of the tables.
    """
    return sum(
        session.value(f"SELECT count(*) {_unfinished(workspace, staging, route)}")
        for staging in stagings
        for route in staging.transform.table.routes
    )


def _unfinished(workspace: Workspace, staging: Staging, route: Route) -> str:
    """Return the FROM clause of unfinished mirrored rows ``t``.

    Guarded by all that makes a row a mirror: written by the migration alone, unfinished, without a due time,
    and waiting for no prerequisite.
    """
    return f"""
        FROM {qualified(route.target)} t JOIN {staging.ledger} l ON {staging.is_known}
            AND l.target_id = t.id AND l.route = {literal(route.name)} AND l.disposition = 'migrated'
            AND l.target_key = {key_text("t", route.key)}
        WHERE t.status IN ('PENDING', 'PROCESSING') AND t.next_attempt_at IS NULL
            AND t.celery_task_id IS NULL AND t.worker IS NULL
            AND NOT EXISTS (
                SELECT FROM {workspace.own("tasktrail_prerequisites")} p
                WHERE p.domain = {literal(route.domain)} AND p.tracking_id = t.id AND p.met_at IS NULL
            )
    """


def _release(workspace: Workspace, staging: Staging, route: Route, limit: str, among: str = "") -> str:
    """Return the statement that releases unfinished mirrored rows."""
    table = qualified(route.target)
    return f"""
        WITH unfinished AS (
            SELECT t.id, t.updated_at < %(moment)s::timestamptz - interval '{ABANDONED_AFTER}' AS is_abandoned
            {_unfinished(workspace, staging, route)} {among}
            ORDER BY t.id {limit} FOR UPDATE OF t
        )
        UPDATE {table} t SET
            status = CASE WHEN u.is_abandoned THEN 'FAILED' ELSE 'PENDING' END,
            next_attempt_at = CASE WHEN NOT u.is_abandoned THEN now() END,
            started_at = CASE WHEN u.is_abandoned THEN t.started_at END,
            completed_at = CASE WHEN u.is_abandoned THEN now() END,
            error_message = CASE WHEN NOT u.is_abandoned THEN t.error_message
                WHEN t.error_message IS NULL THEN {literal(ABANDONED)}
                ELSE {literal(ABANDONED + "; its last error: ")} || t.error_message END,
            updated_at = now()
        FROM unfinished u
        WHERE t.id = u.id AND t.status IN ('PENDING', 'PROCESSING') AND t.next_attempt_at IS NULL
            AND t.celery_task_id IS NULL AND t.worker IS NULL
    """
