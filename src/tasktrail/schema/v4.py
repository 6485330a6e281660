"""Version 4 of the library's schema: the parallel run, cutover and archives of a migration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from tasktrail.schema.v1 import VERSION_TABLE

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.operations import Operations

VERSION: Final = 4

TABLES: Final = ("tasktrail_comparisons", "tasktrail_drift", "tasktrail_archives")


def upgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Create the tables of comparisons, drift and archives.

    Args:
        op: ``alembic.op``.
        schema: PostgreSQL schema of the library's tables.
    """
    moment = sa.DateTime(timezone=True)
    op.add_column("tasktrail_migrations", sa.Column("window_ends_at", moment), schema=schema)
    op.create_table(
        "tasktrail_comparisons",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("migration", sa.String(40), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("finished_at", moment, nullable=False),
        sa.Column("compared", sa.BigInteger, nullable=False),
        sa.Column("pending", sa.BigInteger, nullable=False),
        sa.Column("pairs", sa.BigInteger, nullable=False),
        sa.Column("only_new", sa.BigInteger, nullable=False),
        sa.Column("mismatches", sa.BigInteger, nullable=False),
        sa.Column("known", sa.BigInteger, nullable=False),
        sa.Column("healed", sa.BigInteger, nullable=False),
        schema=schema,
    )
    op.create_index("idx_tasktrail_comparisons", "tasktrail_comparisons", ["migration", "id"], schema=schema)
    op.create_table(
        "tasktrail_drift",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("migration", sa.String(40), nullable=False),
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("found_by", sa.String(12), nullable=False),
        sa.Column("row_key", sa.Text, nullable=False),
        sa.Column("what", sa.String(60), nullable=False),
        sa.Column("column_name", sa.String(63), server_default="", nullable=False),
        sa.Column("expected", sa.Text),
        sa.Column("found", sa.Text),
        sa.Column("known_as", sa.Text),
        sa.Column("passes", sa.Integer, server_default=sa.text("1"), nullable=False),
        sa.Column("first_seen_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("last_seen_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("healed_at", moment),
        schema=schema,
    )
    op.create_index(
        "uq_tasktrail_drift_open",
        "tasktrail_drift",
        ["migration", "table_name", "found_by", sa.text("md5(row_key)"), "what", "column_name"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("healed_at IS NULL"),
    )
    op.create_table(
        "tasktrail_archives",
        sa.Column("migration", sa.String(40), nullable=False),
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("archive", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("checksum", sa.Text, nullable=False),
        sa.Column("definition", JSONB, nullable=False),
        sa.Column("archived_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("tested_at", moment),
        sa.Column("dropped_at", moment),
        sa.PrimaryKeyConstraint("migration", "table_name"),
        schema=schema,
    )
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.insert(version).values(version=VERSION))


def downgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Drop what ``upgrade`` created."""
    for name in reversed(TABLES):
        op.drop_table(name, schema=schema)
    op.drop_column("tasktrail_migrations", "window_ends_at", schema=schema)
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.delete(version).where(version.c.version == VERSION))
