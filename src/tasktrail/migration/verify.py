"""Verification: three ways to find out whether the copy is right, which fail for different reasons.

1. The account: every legacy row has a ledger row that is up to date, and what it says is there.
2. Checksums: what the transform makes of the legacy tables now, against what is in the new ones.
3. The twins (in ``witness``): what plain Python makes of each row, against what is in the new tables.

Rows whose change is still in the queue are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tasktrail.migration.account import GHOST, UNACCOUNTED, take
from tasktrail.migration.difference import Difference, Way
from tasktrail.migration.expressions import literal
from tasktrail.migration.groups import logged, ranked
from tasktrail.migration.names import key_text, listed, qualified, quoted
from tasktrail.migration.plan import Route
from tasktrail.migration.session import Session
from tasktrail.migration.staging import WRITTEN_BACK, Staging
from tasktrail.migration.transform import HASH
from tasktrail.migration.workspace import Workspace

MOST_SHOWN: Final = 1_000
"""How many differing rows of a table are named, at most; all are counted."""


@dataclass(slots=True)
class Verdict:
    """What one way of verification found.

    Attributes:
        way: which.
        compared: rows that were looked at.
        pending: rows that were left out because their change is in the queue.
        differing: how many rows are not as they should be.
        differences: what is wrong with them; of many rows the first ``MOST_SHOWN`` of each table.
    """

    way: Way
    compared: int = 0
    pending: int = 0
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, differences: Iterable[Difference]) -> None:
        """Count one row and note what is wrong with it, if anything is."""
        found = list(differences)
        if found:
            self.differing += 1
            if self.differing <= MOST_SHOWN:
                self.differences.extend(found)


def verify_account(session: Session, workspace: Workspace, stagings: list[Staging]) -> Verdict:
    """Check the equation, and that each ledger row is up to date and points at a row that is there.

    Args:
        session: within a snapshot.
        workspace: the plan and the database.
        stagings: of the tables.
    """
    account = take(session, workspace, stagings)
    verdict = Verdict("account", compared=account.source_rows(), pending=account.total("pending"))
    for line in account.lines:
        if line.fate in (UNACCOUNTED, GHOST):
            verdict.differing += line.rows
            verdict.differences.append(
                Difference("account", line.table, line.kind, line.fate, found=f"{line.rows} rows")
            )
    for staging in stagings:
        for row in session.rows(_stale(workspace, staging)):
            verdict.add([Difference("account", staging.transform.table.name, row["source_key"], row["what"])])
    return verdict


def verify_checksums(session: Session, workspace: Workspace, stagings: list[Staging]) -> Verdict:
    """Compare a checksum of each row with that of what the transform makes of its legacy rows.

    Rows that the new side worked on itself are left to the comparison of the parallel run.

    Args:
        session: within a snapshot.
        workspace: the plan and the database.
        stagings: of the tables.
    """
    verdict = Verdict("checksum")
    for staging in stagings:
        for route in staging.transform.table.routes:
            _compare_route(session, workspace, staging, route, verdict)
    return verdict


def queued(workspace: Workspace, staging: Staging) -> str:
    """Return SQL for the keys of the legacy rows whose change was not applied yet."""
    return (
        f"SELECT source_key FROM {workspace.own('tasktrail_changes')} "
        f"WHERE side = 'legacy' AND table_name = {literal(staging.transform.table.name)}"
    )


def pending_groups(workspace: Workspace, staging: Staging, route: Route) -> str:
    """Return SQL for the target keys that a queued change belongs to, by the ledger."""
    return (
        f"SELECT l.target_key FROM {staging.ledger} l WHERE {staging.is_known} "
        f"AND l.route = {literal(route.name)} AND l.target_key IS NOT NULL "
        f"AND l.source_key IN ({queued(workspace, staging)})"
    )


def expected(workspace: Workspace, staging: Staging, route: Route) -> str:
    """Return SQL for what should be in a target: a row for each unit of work, and ``_is_pending``."""
    transform = staging.transform
    rows = transform.rows(route, f"{transform.source} s")
    return f"""
        WITH transformed AS (SELECT * FROM ({rows}) rows WHERE _reason IS NULL),
        marked AS (
            SELECT t.*, t._source_key IN ({queued(workspace, staging)}) AS _is_queued FROM transformed t
        ),
        ranked AS ({ranked(transform.table, route, "marked st", "TRUE")}),
        pending AS (
            SELECT _target_key FROM marked WHERE _is_queued
            UNION {pending_groups(workspace, staging, route)}
        ),
        expected AS (
            SELECT l.*, coalesce(l._log, '[]'::jsonb) AS attempt_log,
                _target_key IN (SELECT _target_key FROM pending) AS _is_pending
            FROM ({logged(route, "ranked r")}) l WHERE _place = 1
        )
    """


def is_paired(staging: Staging, route: Route, target_key: str) -> str:
    """Return SQL that is true for a unit of work that the new side did on its own."""
    return (
        f"EXISTS (SELECT FROM {staging.ledger} l WHERE {staging.is_known} AND l.route = "
        f"{literal(route.name)} "
        f"AND l.target_key = {target_key} AND l.target_key IS NOT NULL AND l.reason IN ('paired', "
        f"'id_taken', {literal(WRITTEN_BACK)}))"
    )


def _compare_route(
    session: Session, workspace: Workspace, staging: Staging, route: Route, verdict: Verdict
) -> None:
    table = staging.transform.table.name
    names = [*route.columns, "attempt_log"]
    cte = expected(workspace, staging, route)
    actual = (
        f"SELECT {key_text('t', route.key)} AS _target_key, md5(ROW({listed(names, 't')})::text) AS hash, "
        f"t.celery_task_id IS NULL AND t.worker IS NULL AS is_untouched FROM {qualified(route.target)} t"
    )
    joined = f"""
        FROM (SELECT _target_key, _is_pending, md5(ROW({listed(names)})::text) AS hash FROM expected) e
        FULL JOIN ({actual}) a USING (_target_key)
    """
    is_pending = (
        "coalesce(_is_pending, FALSE) OR e.hash IS NULL AND _target_key IN (SELECT _target_key FROM pending)"
    )
    paired = is_paired(staging, route, "_target_key")
    # One pass: the transform of all rows is what takes the time.
    seen = session.row(f"""
        {cte} SELECT count(*) AS compared, count(*) FILTER (WHERE {is_pending}) AS pending,
            jsonb_agg(jsonb_build_array(_target_key, e.hash IS NULL, a.hash IS NULL) ORDER BY _target_key)
            FILTER (WHERE e.hash IS DISTINCT FROM a.hash AND NOT ({is_pending})
                AND coalesce(a.is_untouched, TRUE) AND NOT ({paired})) AS wrong
        {joined}
    """)
    if seen is None:
        return
    verdict.compared += seen["compared"] - seen["pending"]
    verdict.pending += seen["pending"]
    wrong = seen["wrong"] or []
    in_both = [key for key, is_extra, is_missing in wrong[:MOST_SHOWN] if not is_extra and not is_missing]
    details = _details(session, staging, route, cte, in_both)
    for key, is_extra, _ in wrong:
        whole = Difference("checksum", table, f"{route.name} {key}", "extra" if is_extra else "missing")
        verdict.add(details.get(key) or [whole])


def _details(
    session: Session, staging: Staging, route: Route, cte: str, keys: list[str]
) -> dict[str, list[Difference]]:
    """Say which columns of some rows differ."""
    if not keys:
        return {}
    names = [*route.columns, "attempt_log"]
    sides = ", ".join(
        f"e.{quoted(name)}::text AS e{number}, t.{quoted(name)}::text AS t{number}"
        for number, name in enumerate(names)
    )
    wanted = ", ".join(map(literal, keys))
    rows = session.rows(f"""
        {cte} SELECT e._target_key, {sides} FROM expected e
        JOIN {qualified(route.target)} t ON {key_text("t", route.key)} = e._target_key
        WHERE e._target_key IN ({wanted})
    """)
    table = staging.transform.table.name
    found: dict[str, list[Difference]] = {}
    for row in rows:
        for number, name in enumerate(names):
            one, other = row[f"e{number}"], row[f"t{number}"]
            if one != other:
                key = f"{route.name} {row['_target_key']}"
                found.setdefault(row["_target_key"], []).append(
                    Difference("checksum", table, key, "different", name, one, other)
                )
    return found


def _stale(workspace: Workspace, staging: Staging) -> str:
    """Return SQL for ledger rows that are out of date, or point at a row that is not there."""
    transform = staging.transform
    parts = [
        f"""
        SELECT l.source_key, 'stale' AS what FROM {staging.ledger} l
        JOIN {transform.source} s ON {transform.source_key} = l.source_key
        WHERE {staging.is_known} AND l.source_hash <> {HASH}
            AND l.source_key NOT IN ({queued(workspace, staging)})
        """
    ]
    parts.extend(
        f"""
        SELECT l.source_key, 'points at a row that is not there' FROM {staging.ledger} l
        WHERE {staging.is_known} AND l.route = {literal(route.name)} AND l.target_key IS NOT NULL
            AND l.reason IS DISTINCT FROM 'paired'
            AND NOT EXISTS (SELECT FROM {qualified(route.target)} t WHERE t.id = l.target_id)
        """
        for route in transform.table.routes
    )
    return " UNION ALL ".join(parts) + " ORDER BY source_key"


def as_text(value: Any) -> str | None:
    """Return a value for a report."""
    return None if value is None else str(value)
