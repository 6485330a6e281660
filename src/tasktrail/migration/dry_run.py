"""The dry run: the real transform in a READ ONLY transaction, and what would become of every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tasktrail.migration.account import Account, Line
from tasktrail.migration.inspection import Inspected
from tasktrail.migration.names import matching, qualified
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a backfill would do.

    Attributes:
        account: where every legacy row would be.
        inspected: what was found in the database.
    """

    account: Account
    inspected: Inspected


def predict(session: Session, workspace: Workspace) -> Prediction:
    """Run the transform of every row, and write nothing.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.

    Raises:
        PlanRefused: the plan does not fit the database.
        psycopg.Error: a row makes its transform fail.
    """
    inspected = workspace.inspect(session)
    stagings = [
        Staging(transform, number, workspace.schema) for number, transform in enumerate(inspected.transforms)
    ]
    lines: list[Line] = []
    with session.snapshot(read_only=True):
        for staging in stagings:
            lines.extend(_predict_table(session, staging))
    return Prediction(Account(tuple(lines)), inspected)


def differences(predicted: Account, real: Account) -> list[str]:
    """Return where the real account is not as predicted, in words."""
    before, after = _counts(predicted), _counts(real)
    return [
        f"{table}, {kind}: {fate}{f' ({reason})' if reason else ''}: "
        f"{before[table, kind, fate, reason]} predicted, {after[table, kind, fate, reason]} now"
        for table, kind, fate, reason in sorted(before.keys() | after.keys(), key=str)
        if before[table, kind, fate, reason] != after[table, kind, fate, reason]
    ]


def _counts(account: Account) -> Counter[tuple[str, str, str, str | None]]:
    counts: Counter[tuple[str, str, str, str | None]] = Counter()
    for line in account.lines:
        counts[line.table, line.kind, line.fate, line.reason] += line.rows
    return counts


def _predict_table(session: Session, staging: Staging) -> list[Line]:
    transform = staging.transform
    table = transform.table
    keys = ", ".join(f"_k{number} DESC" for number in range(len(table.key)))
    parts = []
    for route in table.routes:
        rows = transform.rows(route, f"{transform.source} s")
        own = staging.owned(route, "t", "r._target_key")
        parts.append(f"""
            SELECT _source_key,
                CASE WHEN _reason IS NOT NULL THEN _disposition WHEN is_pair IS FALSE THEN 'quarantined'
                    WHEN is_pair OR place > 1 THEN 'consolidated' ELSE 'migrated' END AS fate,
                CASE WHEN _reason IS NOT NULL THEN _reason WHEN is_pair IS FALSE THEN 'id_taken'
                    WHEN is_pair THEN 'paired' WHEN place > 1 THEN 'newer_row' END AS reason
            FROM (
                SELECT r.*,
                    row_number() OVER (PARTITION BY _target_key ORDER BY updated_at DESC NULLS LAST,
                    {keys}) AS place, (SELECT {staging.is_pair(route, "t", "r")} FROM
                    {qualified(route.target)} t WHERE _reason IS NULL AND {matching("t", "r", route.key)}
                        AND NOT ({own})) AS is_pair
                FROM ({rows}) r
            ) ranked
        """)
    parts.append(
        f"SELECT _source_key, _disposition, _reason FROM ({transform.others(f'{transform.source} s')}) others"
    )
    found = session.rows(f"""
        SELECT left(coalesce(({table.kind})::text, 'none'), 60) AS kind, fate, reason, count(*) AS rows
        FROM ({" UNION ALL ".join(parts)}) fates
        JOIN {transform.source} s ON {transform.source_key} = fates._source_key
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    """)
    return [Line(table.name, row["kind"], row["fate"], row["reason"], row["rows"]) for row in found]
