"""The account: where every legacy row is. One statement, so it is true at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from tasktrail.migration.expressions import literal
from tasktrail.migration.names import key_text, listed
from tasktrail.migration.plan import DISPOSITIONS
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging
from tasktrail.migration.workspace import Workspace

PENDING = "pending"
"""Known, and to be dealt with: its change is in the queue, or the backfill has not come so far."""

UNACCOUNTED = "unaccounted"
"""A legacy row that nobody knows of. There must be none."""

GHOST = "ghost"
"""A live ledger row whose legacy row is gone, and nobody noted that. There must be none."""


@dataclass(frozen=True, slots=True)
class Line:
    """Rows of one table that share a fate.

    Attributes:
        table: its name in the plan.
        kind: of the rows, e.g. their task type; at most 60 characters of it.
        fate: a disposition, or ``pending``, ``unaccounted``, ``ghost``.
        reason: why, where there is a reason.
        rows: how many there are.
    """

    table: str
    kind: str
    fate: str
    reason: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class Account:
    """Where every legacy row is, at one moment.

    Attributes:
        lines: by table, kind, fate and reason.
    """

    lines: tuple[Line, ...]

    def total(self, *fates: str, table: str | None = None) -> int:
        """Return how many rows share some fates; of one table, if it is named."""
        return sum(line.rows for line in self.lines if line.fate in fates and table in (None, line.table))

    def source_rows(self, table: str | None = None) -> int:
        """Return how many legacy rows there are."""
        return self.total(*DISPOSITIONS, PENDING, UNACCOUNTED, table=table)

    @property
    def is_balanced(self) -> bool:
        """Whether every legacy row is accounted for, and every live ledger row stands for one."""
        return self.total(UNACCOUNTED, GHOST) == 0

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables, in the order of the plan."""
        return tuple(dict.fromkeys(line.table for line in self.lines))

    def equation(self, table: str) -> str:
        """Return the equation of a table, in one line."""
        parts = [f"{self.total(fate, table=table)} {fate}" for fate in DISPOSITIONS]
        parts += [
            f"{self.total(fate, table=table)} {fate}"
            for fate in (PENDING, UNACCOUNTED)
            if self.total(fate, table=table)
        ]
        ghosts = self.total(GHOST, table=table)
        note = f"; {ghosts} live ledger rows without a legacy row" if ghosts else ""
        return f"{table}: {self.source_rows(table)} rows = {' + '.join(parts)}{note}"


def take(session: Session, workspace: Workspace, stagings: list[Staging]) -> Account:
    """Take the account.

    Args:
        session: a connection.
        workspace: the plan and the database.
        stagings: of the tables.
    """
    rows = session.rows(
        f"SELECT * FROM ({query(workspace, stagings)}) account ORDER BY place, kind, fate, reason"
    )
    return Account(
        tuple(Line(row["table_name"], row["kind"], row["fate"], row["reason"], row["rows"]) for row in rows)
    )


def create_view(session: Session, workspace: Workspace, stagings: list[Staging]) -> str:
    """Make the account a view, for anyone to read, and return its name."""
    name = workspace.own(f"tasktrail_account_{workspace.plan.name}")
    session.run(
        f"CREATE OR REPLACE VIEW {name} AS "
        f"SELECT table_name, kind, fate, reason, rows FROM ({query(workspace, stagings)}) account"
    )
    return name


def drop_view(session: Session, workspace: Workspace) -> None:
    """Drop the view, which would keep the legacy tables from being dropped."""
    session.run(f"DROP VIEW IF EXISTS {workspace.own(f'tasktrail_account_{workspace.plan.name}')}")


def query(workspace: Workspace, stagings: list[Staging]) -> str:
    """Return the account as SQL."""
    return " UNION ALL ".join(_of_table(workspace, staging) for staging in stagings)


def _of_table(workspace: Workspace, staging: Staging) -> str:
    transform = staging.transform
    table = transform.table
    name, key = literal(table.name), key_text("s", table.key)
    columns = f"({listed(table.key, 's')})"
    cursor = f"({', '.join(transform.key_values('p.cursor'))})"
    bound = f"({', '.join(transform.key_values('p.bound'))})"
    queued = (
        f"SELECT DISTINCT source_key FROM {workspace.own('tasktrail_changes')} "
        f"WHERE side = 'legacy' AND table_name = {name}"
    )
    is_ahead = (
        f"p.finished_at IS NULL AND (p.cursor IS NULL OR {columns} > {cursor}) AND {columns} <= {bound}"
    )
    position = (
        "SELECT cursor, bound, finished_at, TRUE AS is_there FROM "
        f"{workspace.own('tasktrail_migration_tables')} "
        f"WHERE migration = {literal(workspace.plan.name)} AND table_name = {name}"
    )
    return f"""
        SELECT {staging.number} AS place, {name}::text AS table_name, kind, fate, reason, count(*) AS rows
        FROM (
            SELECT left(coalesce(({table.kind})::text, 'none'), 60) AS kind,
                CASE WHEN l.source_key IS NOT NULL THEN l.disposition
                    WHEN q.source_key IS NOT NULL OR p.is_there IS NULL OR ({is_ahead}) THEN '{PENDING}'
                    ELSE '{UNACCOUNTED}' END AS fate,
                l.reason
            FROM {transform.source} s
            LEFT JOIN {staging.ledger} l ON {staging.is_known} AND l.source_key = {key}
            LEFT JOIN ({queued}) q ON q.source_key = {key}
            LEFT JOIN ({position}) p ON TRUE
            UNION ALL
            SELECT 'none', '{GHOST}', NULL FROM {staging.ledger} l
            WHERE {staging.is_known}
                AND NOT EXISTS (SELECT FROM {transform.source} s WHERE {key} = l.source_key)
                AND NOT EXISTS (SELECT FROM ({queued}) q WHERE q.source_key = l.source_key)
        ) rows GROUP BY kind, fate, reason
    """
