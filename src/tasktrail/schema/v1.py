"""Version 1 of the library's schema: the version table, and tracking tables with the standard columns.

An Alembic revision calls it::

    def upgrade() -> None:
        v1.upgrade(op, schema="tracking")
        v1.create_tracking_table(op, "report_tracking", domain="report", schema="tracking", items=[...])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem

from tasktrail import partitioning
from tasktrail.errors import ConfigurationError

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
    partitioned: bool = False,
) -> None:
    """Create a tracking table: id, the domain's columns and constraints, the standard columns and indexes.

    Args:
        op: ``alembic.op``.
        name: the table's name.
        domain: the domain's name, part of the names of constraints and indexes.
        items: the domain's columns and constraints.
        schema: PostgreSQL schema of the table.
        partitioned: make it for a model with ``partition_days``; the one UNIQUE constraint among the items,
            its natural key, goes to a table beside it. Maintenance makes the partitions.

    Raises:
        ConfigurationError: it cannot be partitioned: its name is too long, or two constraints are UNIQUE.
    """
    numbered: sa.Identity | sa.DefaultClause = sa.Identity(always=False)
    split: dict[str, Any] = {"postgresql_partition_by": "RANGE (id)"} if partitioned else {}
    keys = [item for item in items if partitioned and isinstance(item, sa.UniqueConstraint)]
    others = [item for item in items if not (partitioned and isinstance(item, sa.UniqueConstraint))]
    if partitioned:
        partitioning.check(name, 1)
        if len(keys) > 1:
            raise ConfigurationError(f"{name}: only its natural key can be UNIQUE in a partitioned table")
        for statement in partitioning.before_table(name, schema):
            op.execute(statement)
        numbered = sa.DefaultClause(sa.text(partitioning.next_id(name, schema)))
    table = op.create_table(
        name,
        sa.Column("id", sa.BigInteger, numbered, primary_key=True),
        *others,
        *_standard_columns(),
        sa.CheckConstraint(
            "status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED')",
            name=f"ck_{domain}_status",
        ),
        sa.CheckConstraint("attempts >= 0 AND max_attempts >= 1", name=f"ck_{domain}_attempts"),
        schema=schema,
        **split,
    )
    if partitioned:
        for statement in partitioning.after_table(name, schema):
            op.execute(statement)
    for key in keys:
        _create_keys(op, table, key)
    for suffix, columns, where in (
        ("status", ["status"], None),
        ("dates", ["created_at", "completed_at"], None),
        ("due", ["next_attempt_at"], "status = 'PENDING'"),
        ("leased", ["heartbeat_at"], "status = 'PROCESSING'"),
    ):
        condition = None if where is None else sa.text(where)
        op.create_index(f"idx_{domain}_{suffix}", name, columns, schema=schema, postgresql_where=condition)


def drop_partitioned_table(op: Operations | ModuleType, name: str, *, schema: str | None = None) -> None:
    """Drop a partitioned tracking table with its partitions, its natural keys, and what keeps these.

    Args:
        op: ``alembic.op``.
        name: the table's name.
        schema: PostgreSQL schema of the table.
    """
    op.drop_table(name, schema=schema)
    for statement in partitioning.after_drop(name, schema):
        op.execute(statement)


def _create_keys(op: Operations | ModuleType, table: sa.Table, key: sa.UniqueConstraint) -> None:
    table.append_constraint(key)  # which finds its columns
    columns = [column.name for column in key.columns]
    keys = partitioning.keys_table(table, columns, str(key.name))
    op.create_table(
        keys.name,
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(name, table.c[name].type, nullable=False) for name in columns),
        sa.UniqueConstraint(*columns, name=key.name),
        schema=keys.schema,
    )
    for statement in partitioning.keep_keys(table.name, table.schema, columns):
        op.execute(statement)


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
