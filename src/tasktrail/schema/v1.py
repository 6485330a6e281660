"""Version 1 of the library's schema: the version table, and tracking tables with the standard columns.

An Alembic revision calls it::

    def upgrade() -> None:
        v1.upgrade(op, schema="tracking")
        v1.create_tracking_table(op, "report_tracking", domain="report", schema="tracking", items=[...])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.operations import Operations

VERSION: Final = 1
VERSION_TABLE: Final = "tasktrail_version"


def upgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Create the version table, and the schema if it is named and missing.

    Args:
        op: ``alembic.op``.
        schema: PostgreSQL schema of the library's tables.
    """
    if schema is not None:
        op.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    table = op.create_table(
        VERSION_TABLE,
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("applied_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        schema=schema,
    )
    op.execute(sa.insert(table).values(version=VERSION))


def downgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Drop the version table; a schema it shared with other tables stays."""
    op.drop_table(VERSION_TABLE, schema=schema)


def create_tracking_table(
    op: Operations | ModuleType,
    name: str,
    *,
    domain: str,
    items: Sequence[SchemaItem],
    schema: str | None = None,
) -> None:
    """Create a tracking table: id, the domain's columns and constraints, the standard columns and indexes.

    Args:
        op: ``alembic.op``.
        name: the table's name.
        domain: the domain's name, part of the names of constraints and indexes.
        items: the domain's columns and constraints.
        schema: PostgreSQL schema of the table.
    """
    op.create_table(
        name,
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        *items,
        *_standard_columns(),
        sa.CheckConstraint(
            "status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED')",
            name=f"ck_{domain}_status",
        ),
        sa.CheckConstraint("attempts >= 0 AND max_attempts >= 1", name=f"ck_{domain}_attempts"),
        schema=schema,
    )
    for suffix, columns, where in (
        ("status", ["status"], None),
        ("dates", ["created_at", "completed_at"], None),
        ("due", ["next_attempt_at"], "status = 'PENDING'"),
        ("leased", ["heartbeat_at"], "status = 'PROCESSING'"),
    ):
        condition = None if where is None else sa.text(where)
        op.create_index(f"idx_{domain}_{suffix}", name, columns, schema=schema, postgresql_where=condition)


def _standard_columns() -> list[sa.Column[object]]:
    moment = sa.DateTime(timezone=True)
    return [
        sa.Column("status", sa.String(20), server_default="PENDING", nullable=False),
        sa.Column("created_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("started_at", moment),
        sa.Column("completed_at", moment),
        sa.Column("error_message", sa.Text),
        sa.Column("attempts", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer, server_default=sa.text("3"), nullable=False),
        sa.Column("celery_task_id", sa.String(255)),
        sa.Column("next_attempt_at", moment, server_default=sa.func.now()),
        sa.Column("heartbeat_at", moment),
        sa.Column("worker", sa.String(255)),
        sa.Column("dispatched_at", moment),
        sa.Column("attempt_log", JSONB, server_default=sa.text("'[]'::jsonb"), nullable=False),
    ]
