"""Units of work of which only the newest legacy rows changed: their older rows are left alone.

What a unit becomes is its newest row, and in its log the others, the oldest first. Old workers add rows and
update the newest one. Then all that was there before keeps its place in the log, and what there is to do
does not grow with the number of rows that a unit has. The rows from the newest one before on are the unit's
tail. Whatever else happens breaks it: an older row changed or went, the newest one left, another came that
is not newer. The unit is then taken whole.
"""

from __future__ import annotations

from tasktrail.migration.expressions import literal
from tasktrail.migration.names import qualified
from tasktrail.migration.plan import Route
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.models import ATTEMPT_LOG_LIMIT


def review(session: Session, staging: Staging, number: int) -> None:
    """Find out of which units only the newest rows changed, by what is staged so far.

    Args:
        session: within a transaction.
        staging: of the table.
        number: of the round of keys that comes next.
    """
    for route in staging.shared:
        if number == 1:
            _begin(session, staging, route)
        _judge(session, staging, route)


def _begin(session: Session, staging: Staging, route: Route) -> None:
    """Note the tail of each unit that a staged row belongs to, where the migration owns it.

    One transaction must have written the row of the target and the ledger row of the newest legacy row, and
    nobody since, e.g. whoever cancelled what legacy workers had begun. Otherwise nobody knows without looking
    whether the target is what the older rows make of it. If it is, the last entry of its log has the number
    of the older rows.
    """
    session.run(f"""
        INSERT INTO {staging.tail(route)} (_target_key, _source_key, _target_id, _updated_at, _older)
        SELECT unit._target_key, newest.source_key, t.id, t.updated_at,
            coalesce((t.attempt_log -> -1 ->> 'number')::int, 0)
        FROM (SELECT DISTINCT _target_key FROM {staging.stage(route)} WHERE _is_fine) unit
        CROSS JOIN LATERAL (
            SELECT l.source_key, l.target_id, l.xmin::text AS writer FROM {staging.ledger} l
            WHERE l.target_key = unit._target_key AND l.target_key IS NOT NULL
                AND l.route = {literal(route.name)} AND {staging.is_known} AND l.disposition = 'migrated'
                AND l.reason IS NULL AND l.rule_version = {staging.transform.table.rule_version}
            LIMIT 1
        ) newest
        JOIN {qualified(route.target)} t ON t.id = newest.target_id AND t.xmin::text = newest.writer
            AND {staging.is_ours("t", "NULL::text")}
    """)


def _judge(session: Session, staging: Staging, route: Route) -> None:
    """Break the tails of units to which something else happened."""
    tail, stage = staging.tail(route), staging.stage(route)
    session.run(f"""
        UPDATE {tail} tail SET _is_broken = TRUE, _older = 0
        FROM (
            SELECT x._target_key FROM {tail} x JOIN {stage} st ON st._target_key = x._target_key
            WHERE st._is_fine AND CASE WHEN st._source_key = x._source_key
                THEN st.updated_at >= x._updated_at ELSE st.updated_at > x._updated_at END IS NOT TRUE
            UNION
            SELECT x._target_key FROM {tail} x JOIN {staging.known} n ON n._target_key = x._target_key
            WHERE n._is_live AND n._route = {literal(route.name)} AND n._source_key <> x._source_key
            UNION
            SELECT x._target_key FROM {tail} x JOIN {staging.keys} k ON k._source_key = x._source_key
            LEFT JOIN {stage} st ON st._source_key = k._source_key AND st._target_key = x._target_key
            WHERE st._is_fine IS NOT TRUE
        ) broken
        WHERE tail._target_key = broken._target_key AND NOT tail._is_broken
    """)


def log(staging: Staging, route: Route, added: str) -> str:
    """Return SQL for the log of the unit ``_target_key``: what it was, and what its tail adds.

    Args:
        staging: of the table.
        route: of the unit.
        added: SQL for the entries of the rows that are staged; NULL where there is none.
    """
    kept = f"$[last - {ATTEMPT_LOG_LIMIT - 1} to last]"
    before = f"""
        SELECT CASE WHEN {added} IS NULL THEN t.attempt_log
            ELSE jsonb_path_query_array(t.attempt_log || {added}, {literal(kept)}) END
        FROM {staging.tail(route)} tail JOIN {qualified(route.target)} t ON t.id = tail._target_id
        WHERE tail._target_key = logged._target_key AND NOT tail._is_broken
    """
    return f"coalesce(({before}), {added}, '[]'::jsonb)"
