"""Several legacy rows for one unit of work: the newest is migrated, the others enter its log.

The newest is the one with the greatest new ``updated_at``, then the greatest legacy key.
"""

from __future__ import annotations

from tasktrail.migration.plan import Route, TableMigration
from tasktrail.models import ATTEMPT_LOG_LIMIT


def ranked(table: TableMigration, route: Route, rows: str, condition: str, older: str = "0") -> str:
    """Return SQL for rows with their place in their group, 1 being the newest, and the size of the group.

    Args:
        table: where they come from.
        route: which they take; where ids are kept, each row is alone in its group.
        rows: SQL of a FROM clause: what legacy rows become, as ``st``.
        condition: true for those that are migrated or consolidated.
        older: SQL for how many rows the group has besides, all of them older.
    """
    if route.keeps_ids:
        return f"SELECT st.*, 1::bigint AS _place, 1::bigint AS _size FROM {rows} WHERE {condition}"
    keys = ", ".join(f"_k{number} DESC" for number in range(len(table.key)))
    return (
        "SELECT st.*, row_number() OVER newest AS _place, "
        f"count(*) OVER (PARTITION BY _target_key) + {older} AS _size "
        f"FROM {rows} WHERE {condition} "
        f"WINDOW newest AS (PARTITION BY _target_key ORDER BY updated_at DESC NULLS LAST, {keys})"
    )


def logged(route: Route, rows: str) -> str:
    """Return SQL for ranked rows with the log that the others leave in the newest, as its ``_log``.

    The oldest rows of a large group, which have no place in the log, are left out.

    Args:
        route: of the rows.
        rows: SQL of a FROM clause: ranked rows, as ``r``.
    """
    if route.keeps_ids:
        return f"SELECT r.*, NULL::jsonb AS _log FROM {rows}"
    # One frame for the whole group: the log is made once for it, where a frame that moves along would have
    # it made anew for each row. The entry of a row that is filtered out is not even made.
    return (
        f"SELECT r.*, jsonb_agg({_entry(route)}) FILTER (WHERE _place > 1) "
        "OVER (PARTITION BY _target_key ORDER BY _place DESC "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS _log "
        f"FROM {rows} WHERE _place <= {ATTEMPT_LOG_LIMIT + 1}"
    )


def _entry(route: Route) -> str:
    """Return SQL for the entry that a consolidated row ``r`` leaves in the log."""

    def known(name: str, otherwise: str) -> str:
        return f"coalesce(r.{name}, {otherwise})" if name in route.columns else otherwise

    return f"""jsonb_build_object(
        'number', r._size - r._place + 1,
        'start', {known("started_at", "r.created_at")},
        'end', {known("completed_at", "r.updated_at")},
        'outcome', CASE r.status WHEN 'FAILED' THEN 'error' WHEN 'CANCELLED' THEN 'cancelled'
            ELSE 'superseded' END,
        'error', {known("error_message", "'a later legacy row took its place; this one was ' || r.status")},
        'worker', NULL
    )"""
