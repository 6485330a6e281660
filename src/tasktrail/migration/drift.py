"""Temporary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasktrail.migration.difference import Difference, Way
from tasktrail.migration.session import Session
from tasktrail.migration.workspace import Workspace


def record(session: Session, workspace: Workspace, differences: Iterable[Difference]) -> None:
    """Record."""
    for one in differences:
        session.run(
            f"INSERT INTO {workspace.own('tasktrail_drift')} AS d (migration, table_name, found_by, row_key, "
            "what, column_name, expected, found) VALUES (%(m)s, %(t)s, %(w)s, %(k)s, %(what)s, %(c)s, "
            "%(e)s, %(f)s) ON CONFLICT (migration, table_name, found_by, md5(row_key), what, column_name) "
            "WHERE healed_at IS NULL DO UPDATE SET passes = d.passes + 1, last_seen_at = now(), found = excluded.found",
            m=workspace.plan.name,
            t=one.table,
            w=one.way,
            k=one.key,
            what=one.what,
            c=one.column,
            e=one.expected,
            f=one.found,
        )


def settle(session: Session, workspace: Workspace, way: Way, keys: Sequence[str]) -> None:
    """Settle."""
    session.run(
        f"UPDATE {workspace.own('tasktrail_drift')} SET healed_at = now() WHERE migration = %(m)s "
        "AND found_by = %(w)s AND row_key = ANY(%(k)s) AND healed_at IS NULL",
        m=workspace.plan.name,
        w=way,
        k=list(keys),
    )


def clean_passes(session: Session, workspace: Workspace, since: object) -> int:
    """Clean."""
    return int(session.value(f"SELECT count(*) FROM {workspace.own('tasktrail_comparisons')}"))


def still_open(session: Session, workspace: Workspace, way: Way) -> list[Difference]:
    """Open."""
    rows = session.rows(
        f"SELECT table_name, row_key, what, found FROM {workspace.own('tasktrail_drift')} "
        "WHERE migration = %(m)s AND found_by = %(w)s AND healed_at IS NULL ORDER BY id",
        m=workspace.plan.name,
        w=way,
    )
    return [Difference(way, r["table_name"], r["row_key"], r["what"], found=r["found"]) for r in rows]


def settle_all(session: Session, workspace: Workspace, way: Way) -> None:
    """Settle all."""
    session.run(
        f"UPDATE {workspace.own('tasktrail_drift')} SET healed_at = now() WHERE migration = %(m)s "
        "AND found_by = %(w)s AND healed_at IS NULL",
        m=workspace.plan.name,
        w=way,
    )
