"""How far migrations have come, read from the tables that a migration keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from tasktrail.library import MIGRATION_TABLE
from tasktrail.monitoring.windows import Source

DROPPED: Final = "dropped"
"""The last phase: the legacy tables are gone, and nothing changes any more."""


@dataclass(frozen=True, slots=True)
class TableProgress:
    """What the backfill of one legacy table did.

    Attributes:
        migration: the migration's name.
        table: the table's name in the plan.
        rows: rows it looked at.
        is_finished: whether it came to the end.
    """

    migration: str
    table: str
    rows: int
    is_finished: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """Changes of one side that the other side does not have yet.

    Attributes:
        side: where they were made, ``legacy`` or ``new``.
        entries: how many.
        seconds: age of the oldest.
    """

    side: str
    entries: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Drift:
    """Differences between legacy and new rows that are open.

    Attributes:
        migration: the migration's name.
        table: the table's name in the plan.
        is_known: whether somebody declared them.
        differences: how many.
    """

    migration: str
    table: str
    is_known: bool
    differences: int


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """How far all migrations have come.

    Attributes:
        phases: the phase of each migration, by its name.
        tables: what the backfill did.
        queues: what is noted and not applied.
        drift: differences that are open.
    """

    phases: dict[str, str]
    tables: tuple[TableProgress, ...]
    queues: tuple[Queue, ...]
    drift: tuple[Drift, ...]

    @property
    def is_under_way(self) -> bool:
        """Whether there is a migration whose legacy tables are still there."""
        return any(phase != DROPPED for phase in self.phases.values())


def migration_progress(db: Source, *, schema: str | None) -> MigrationProgress:
    """Return how far all migrations have come.

    Args:
        db: what to read from.
        schema: where the library's own tables are.
    """
    own = f'"{schema}".' if schema else ""
    phases = db.execute(text(f"SELECT name, phase FROM {own}{MIGRATION_TABLE}")).all()
    tables = db.execute(
        text(f"SELECT migration, table_name, rows_done, finished_at FROM {own}tasktrail_migration_tables")
    )
    queues = db.execute(
        text(
            "SELECT side, count(*) AS entries, extract(epoch FROM now() - min(noted_at))::float8 AS seconds "
            f"FROM {own}tasktrail_changes GROUP BY side"
        )
    )
    drift = db.execute(
        text(
            "SELECT migration, table_name, known_as IS NOT NULL AS is_known, count(*) AS differences "
            f"FROM {own}tasktrail_drift WHERE healed_at IS NULL GROUP BY 1, 2, 3"
        )
    )
    return MigrationProgress(
        phases={row.name: row.phase for row in phases},
        tables=tuple(
            TableProgress(row.migration, row.table_name, row.rows_done, row.finished_at is not None)
            for row in tables
        ),
        queues=tuple(Queue(row.side, row.entries, max(0.0, row.seconds)) for row in queues),
        drift=tuple(Drift(*row) for row in drift),
    )


def dispositions(db: Source, *, schema: str | None) -> dict[tuple[str, str], int]:
    """Count what became of the legacy rows, by table and disposition; this looks at the whole ledger.

    Args:
        db: what to read from.
        schema: where the library's own tables are.
    """
    own = f'"{schema}".' if schema else ""
    found = db.execute(
        text(
            f"SELECT table_name, disposition, count(*) FROM {own}tasktrail_ledger "
            "WHERE deleted_at IS NULL GROUP BY 1, 2"
        )
    )
    return {(table, disposition): rows for table, disposition, rows in found}
