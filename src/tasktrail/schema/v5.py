"""Version 5 of the library's schema: rollups, the figures of history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from tasktrail.schema.v1 import VERSION_TABLE

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.operations import Operations

VERSION: Final = 5

TABLES: Final = ("tasktrail_rollups", "tasktrail_rollup_state")


def upgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Create the tables of rollups.

    Args:
        op: ``alembic.op``.
        schema: PostgreSQL schema of the library's tables.
    """
    moment = sa.DateTime(timezone=True)
    classes, numbers = sa.ARRAY(sa.Integer), sa.ARRAY(sa.BigInteger)
    op.create_table(
        "tasktrail_rollups",
        sa.Column("domain", sa.String(63), primary_key=True),
        sa.Column("width", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start", moment, primary_key=True),
        sa.Column("event", sa.String(20), primary_key=True),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("retried", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("running_seconds", sa.Double, nullable=False),
        sa.Column("waiting_seconds", sa.Double, nullable=False),
        sa.Column("running_classes", classes, nullable=False),
        sa.Column("running_rows", numbers, nullable=False),
        sa.Column("waiting_classes", classes, nullable=False),
        sa.Column("waiting_rows", numbers, nullable=False),
        sa.Column("attempts_classes", classes, nullable=False),
        sa.Column("attempts_rows", numbers, nullable=False),
        schema=schema,
    )
    op.create_table(
        "tasktrail_rollup_state",
        sa.Column("domain", sa.String(63), primary_key=True),
        sa.Column("rolled_to", moment, nullable=False),
        sa.Column("built_from", moment, nullable=False),
        sa.Column("kept_from", moment),
        sa.Column("audited_to", moment),
        sa.Column("slice_seconds", sa.Integer, server_default=sa.text("3600"), nullable=False),
        sa.Column("rolled_at", moment, server_default=sa.func.now(), nullable=False),
        schema=schema,
    )
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.insert(version).values(version=VERSION))


def downgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Drop what ``upgrade`` created."""
    for name in reversed(TABLES):
        op.drop_table(name, schema=schema)
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.delete(version).where(version.c.version == VERSION))


def create_index_of_ended(
    op: Operations | ModuleType,
    table: str,
    *,
    domain: str,
    schema: str | None = None,
    concurrently: bool = True,
) -> None:
    """Create the index of a tracking table by the time at which its rows ended.

    Args:
        op: ``alembic.op``; inside ``autocommit_block()`` when the index is built concurrently.
        table: name of the tracking table.
        domain: the domain's name.
        schema: PostgreSQL schema of the table.
        concurrently: build it while others write; cannot be undone with a transaction.
    """
    op.create_index(
        f"idx_{domain}_ended",
        table,
        ["completed_at"],
        schema=schema,
        postgresql_where=sa.text("completed_at IS NOT NULL"),
        postgresql_concurrently=concurrently,
        if_not_exists=True,
    )
