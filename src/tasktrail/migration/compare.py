"""One pass of comparison: the mirrored rows, and the outcomes where both systems did the same work.

A unit of work that both did is a pair: what the transform makes of its newest legacy row, and the newest row
of the target that the new side worked on itself. Such a row has a Celery id or a worker, or the ledger says
that it was there before its legacy row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tasktrail.migration.difference import Difference
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import in_words, key_text, qualified, quoted
from tasktrail.migration.plan import Route
from tasktrail.migration.session import Row, Session
from tasktrail.migration.staging import WRITTEN_BACK, Staging
from tasktrail.migration.verify import MOST_SHOWN, Verdict, expected, verify_account, verify_checksums
from tasktrail.migration.workspace import Workspace
from tasktrail.states import ENDED

IN_AN_END_STATE: Final = f"IN {in_words(sorted(ENDED))}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one pass found.

    Attributes:
        started_at: by the server's clock, before the first row was looked at.
        verdicts: of the account, the checksums of mirrored rows, and the pairs.
        only_new: units of work that only the new side did; they are no mismatch.
    """

    started_at: datetime
    verdicts: tuple[Verdict, ...]
    only_new: int

    @property
    def compared(self) -> int:
        """How many rows and pairs were looked at; the account is about the same rows as the checksums."""
        return sum(verdict.compared for verdict in self.verdicts if verdict.way != "account")

    @property
    def pending(self) -> int:
        """How many rows and pairs were left out."""
        return sum(verdict.pending for verdict in self.verdicts if verdict.way != "account")

    @property
    def pairs(self) -> int:
        """How many pairs were compared."""
        return sum(verdict.compared for verdict in self.verdicts if verdict.way == "pair")


def compare(session: Session, workspace: Workspace, stagings: list[Staging]) -> Comparison:
    """Compare both sides as they are at one moment; what is in the queue is left out.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        stagings: of the tables.
    """
    started_at = session.value("SELECT clock_timestamp()")
    with session.snapshot(read_only=True):
        account = verify_account(session, workspace, stagings)
        checksums = verify_checksums(session, workspace, stagings)
        pairs, only_new = _compare_pairs(session, workspace, stagings)
    return Comparison(started_at, (account, checksums, pairs), only_new)


def _compare_pairs(session: Session, workspace: Workspace, stagings: list[Staging]) -> tuple[Verdict, int]:
    verdict, only_new = Verdict("pair"), 0
    for staging in stagings:
        for route in staging.transform.table.routes:
            found = session.rows(_pairs(workspace, staging, route))
            totals = found[0]
            only_new += totals["only_new"]
            verdict.compared += totals["compared"]
            verdict.pending += totals["pending"]
            named = 0
            for row in found:
                if row["unit"] is not None:
                    verdict.add(_differences(staging, route, row))
                    named += 1
            verdict.differing += totals["differing"] - named
    return verdict, only_new


def _differences(staging: Staging, route: Route, row: Row) -> Iterator[Difference]:
    table, key = staging.transform.table.name, f"{route.name} {row['unit']}"
    if row["is_missing"]:
        yield Difference("pair", table, key, "missing")
        return
    for number, name in enumerate(route.compared):
        if row[f"d{number}"]:
            yield Difference("pair", table, key, "different", name, row[f"e{number}"], row[f"m{number}"])


def _pairs(workspace: Workspace, staging: Staging, route: Route) -> str:
    """Return SQL for the totals of a route, beside each pair that differs, up to ``MOST_SHOWN``."""
    target = qualified(route.target)
    unit = route.paired_by or route.key
    newest = ", ".join(f"e._k{number} DESC" for number in range(len(staging.transform.table.key)))
    target_key = key_text("t", route.key)
    # Units of work that the migration found taken: their rows are the new side's, even before it runs them.
    noted = (
        f"SELECT l.target_key FROM {staging.ledger} l WHERE {staging.is_known} "
        f"AND l.route = {literal(route.name)} AND l.target_key IS NOT NULL"
    )
    taken = f"{noted} AND l.reason IN ('paired', 'id_taken')"
    written = f"{noted} AND l.reason = {literal(WRITTEN_BACK)}"
    columns = "".join(
        f", e.{quoted(name)}::text AS e{number}, m.{quoted(name)}::text AS m{number}, "
        f"{_differs(name, tolerance)} AS d{number}"
        for number, (name, tolerance) in enumerate(route.compared.items())
    )
    any_column = " OR ".join(["is_missing", *(f"d{number}" for number in range(len(route.compared)))])
    return f"""
        {expected(workspace, staging, route)},
        made AS (
            SELECT DISTINCT ON (_is_shared, _unit) * FROM (
                SELECT t.*, {target_key} IN ({written}) AS _is_shared, CASE WHEN
                    {target_key} IN ({written}) THEN {target_key} ELSE {key_text("t", unit)} END AS _unit
                FROM {target} t
                WHERE t.celery_task_id IS NOT NULL OR t.worker IS NOT NULL OR {target_key} IN ({taken})
            ) t
            ORDER BY _is_shared, _unit, updated_at DESC, id DESC
        ),
        lost AS (
            SELECT target_key FROM ({taken}) taken
            EXCEPT SELECT {target_key} FROM {target} t
        ),
        legacy AS (
            SELECT DISTINCT ON (_is_shared, _unit) * FROM (
                SELECT e.*, _target_key IN ({written}) AS _is_shared, CASE WHEN
                    _target_key IN ({written}) THEN _target_key ELSE {key_text("e", unit)} END AS _unit
                FROM expected e
            ) e
            WHERE (_is_shared, _unit) IN (SELECT _is_shared, _unit FROM made)
                OR e._target_key IN (SELECT target_key FROM lost)
            ORDER BY _is_shared, _unit, updated_at DESC NULLS LAST, {newest}
        ),
        judged AS (
            SELECT coalesce(m._unit, e._unit) AS unit, e._target_key IS NULL AS is_only_new,
                m.id IS NULL AS is_missing,
                CASE WHEN e._target_key IS NULL THEN FALSE WHEN m.id IS NULL THEN e._is_pending
                    ELSE e._is_pending OR NOT (e.status {IN_AN_END_STATE} AND m.status {IN_AN_END_STATE})
                END AS is_pending
                {columns}
            FROM made m FULL JOIN legacy e ON e._unit = m._unit AND e._is_shared = m._is_shared
        ),
        differing AS (SELECT * FROM judged WHERE NOT is_only_new AND NOT is_pending AND ({any_column}))
        SELECT totals.*, named.* FROM (
            SELECT count(*) FILTER (WHERE is_only_new) AS only_new,
                count(*) FILTER (WHERE is_pending) AS pending,
                count(*) FILTER (WHERE NOT is_only_new AND NOT is_pending) AS compared,
                (SELECT count(*) FROM differing) AS differing
            FROM judged
        ) totals LEFT JOIN (SELECT * FROM differing ORDER BY unit LIMIT {MOST_SHOWN}) named ON TRUE
    """


def _differs(name: str, tolerance: timedelta | None) -> str:
    """Return SQL that is true when ``e`` and ``m`` disagree in a column; texts, as checksums are of texts."""
    one, other = f"e.{quoted(name)}", f"m.{quoted(name)}"
    if tolerance is None:
        return f"{one}::text IS DISTINCT FROM {other}::text"
    margin = f"make_interval(secs => {tolerance.total_seconds()!r})"
    return (
        f"NOT coalesce({other} BETWEEN {one} - {margin} AND {one} + {margin}, "
        f"{one} IS NULL AND {other} IS NULL)"
    )
