"""Version 2 of the library's schema: prerequisites between rows, and counters of rare events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from tasktrail.schema.v1 import VERSION_TABLE

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.operations import Operations

VERSION: Final = 2


def upgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Create the tables of prerequisites and counters.

    Args:
        op: ``alembic.op``.
        schema: PostgreSQL schema of the library's tables.
    """
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "tasktrail_prerequisites",
        sa.Column("domain", sa.String(63), nullable=False),
        sa.Column("tracking_id", sa.BigInteger, nullable=False),
        sa.Column("needs_domain", sa.String(63), nullable=False),
        sa.Column("needs_id", sa.BigInteger, nullable=False),
        sa.Column("if_unmet", sa.String(10), nullable=False),
        sa.Column("met_at", moment),
        sa.PrimaryKeyConstraint("domain", "tracking_id", "needs_domain", "needs_id"),
        sa.CheckConstraint(
            "(domain, tracking_id) <> (needs_domain, needs_id)", name="ck_tasktrail_prerequisites_self"
        ),
        sa.CheckConstraint(
            "if_unmet IN ('cancel', 'wait', 'proceed')", name="ck_tasktrail_prerequisites_if_unmet"
        ),
        schema=schema,
    )
    op.create_index(
        "idx_tasktrail_prerequisites_unmet",
        "tasktrail_prerequisites",
        ["needs_domain", "needs_id"],
        schema=schema,
        postgresql_where=sa.text("met_at IS NULL"),
    )
    op.create_table(
        "tasktrail_counters",
        sa.Column("domain", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("updated_at", moment, server_default=sa.func.now(), nullable=False),
        schema=schema,
    )
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.insert(version).values(version=VERSION))


def downgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Drop what ``upgrade`` created."""
    op.drop_table("tasktrail_counters", schema=schema)
    op.drop_table("tasktrail_prerequisites", schema=schema)
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.delete(version).where(version.c.version == VERSION))
