"""How far the copying of legacy tables has come, by all runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tasktrail.migration.session import Session
from tasktrail.migration.workspace import Workspace


@dataclass(frozen=True, slots=True)
class TableProgress:
    """How far the copying of one legacy table has come.

    Attributes:
        table: its name in the plan.
        done: rows copied.
        errors: rows whose transform failed.
        started_at: when it began.
        finished_at: when the last chunk was copied; ``None`` while it goes on.
        rate: rows a second since it began; ``None`` before.
    """

    table: str
    done: int
    errors: int
    started_at: datetime | None
    finished_at: datetime | None
    rate: float | None


def progress(session: Session, workspace: Workspace) -> Iterator[TableProgress]:
    """Say how far the copying of each table has come.

    Args:
        session: a connection.
        workspace: the plan and the database.
    """
    rows = session.rows(
        "SELECT table_name, rows_done, errors, started_at, finished_at, "
        "rows_done / nullif(extract(epoch FROM "
        "coalesce(finished_at, clock_timestamp()) - started_at), 0)::float8 AS rate "
        f"FROM {workspace.own('tasktrail_migration_tables')} "
        "WHERE migration = %(name)s ORDER BY table_name",
        name=workspace.plan.name,
    )
    for row in rows:
        yield TableProgress(
            table=row["table_name"],
            done=row["rows_done"],
            errors=row["errors"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            rate=row["rate"],
        )
