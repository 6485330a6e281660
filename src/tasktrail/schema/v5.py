"""Version 5 of the library's schema: rollups, and what history and failures of a domain are read by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.schema import SchemaItem

from tasktrail.schema import v1
from tasktrail.schema.v1 import VERSION_TABLE

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.operations import Operations

VERSION: Final = 5

TABLES: Final = ("tasktrail_rollups", "tasktrail_rollup_state")

INDEXES: Final = (
    ("ended", ["completed_at"], "completed_at IS NOT NULL"),
    ("failed", ["completed_at", "failure_group", "id"], "status = 'FAILED'"),
    ("failure_group", ["failure_group", "id"], "status = 'FAILED'"),
    ("stopped", ["status", "id"], "status IN ('FAILED', 'CANCELLED')"),
)
"""End of the name, columns and condition of each index that a tracking table gets."""

FOLDED: Final = (
    ("'(?<![A-Za-z0-9_])''[^'']*'''", "'''…'''"),
    ('\'"[^"]*"\'', "'\"…\"'"),
    ("'`[^`]*`'", "'`…`'"),
    ("'[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}'", "'<id>'"),
    (
        (
            "'[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
            "(Z|[+-][0-9]{2}:?[0-9]{2})?)?'"
        ),
        "'<time>'",
    ),
    ("'[0-9]{1,2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?'", "'<time>'"),
    ("'(?<![A-Za-z0-9_])0x[0-9a-fA-F]+'", "'<id>'"),
    ("'(?<![A-Za-z0-9_])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}(?![A-Za-z0-9_])'", "'<id>'"),
    ("'[0-9]+([.,][0-9]+)*'", "'<n>'"),
    ("'(?<![A-Za-z0-9_)])[-+]<n>'", "'<n>'"),
    ("'[ \x08-\x0e]+'", "' '"),
)
"""What a fingerprint folds and into what, as SQL: quoted text, ids, times, numbers, white space."""


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


def create_tracking_table(
    op: Operations | ModuleType,
    name: str,
    *,
    domain: str,
    items: Sequence[SchemaItem],
    schema: str | None = None,
    partitioned: bool = False,
) -> None:
    """Create a tracking table with all that this version gives one; a table that is there gets it in parts.

    Args:
        op: ``alembic.op``.
        name: the table's name.
        domain: the domain's name, part of the names of constraints and indexes.
        items: the domain's columns and constraints.
        schema: PostgreSQL schema of the table.
        partitioned: make it for a model with ``partition_days``; see ``v1.create_tracking_table``.

    Raises:
        ConfigurationError: it cannot be partitioned: its name is too long, or two constraints are UNIQUE.
    """
    v1.create_tracking_table(op, name, domain=domain, items=items, schema=schema, partitioned=partitioned)
    add_failure_group(op, name, schema=schema)
    create_indexes(op, name, domain=domain, schema=schema, concurrently=False)


def add_failure_group(op: Operations | ModuleType, table: str, *, schema: str | None = None) -> None:
    """Add the group of failures that a FAILED row belongs to, a column that the database keeps.

    It is made for all rows, so the table is written anew and nobody can use it meanwhile.

    Args:
        op: ``alembic.op``.
        table: name of the tracking table.
        schema: PostgreSQL schema of the table.
    """
    group = sa.Column("failure_group", sa.Uuid, sa.Computed(_group_if_failed(), persisted=True))
    op.add_column(table, group, schema=schema)


def create_indexes(
    op: Operations | ModuleType,
    table: str,
    *,
    domain: str,
    schema: str | None = None,
    concurrently: bool = True,
) -> None:
    """Create the indexes of a tracking table that history and failures are read by.

    Args:
        op: ``alembic.op``; inside ``autocommit_block()`` when the indexes are built concurrently.
        table: name of the tracking table, which has its ``failure_group``.
        domain: the domain's name.
        schema: PostgreSQL schema of the table.
        concurrently: build them while others write; cannot be undone with a transaction.
    """
    for suffix, columns, where in INDEXES:
        op.create_index(
            f"idx_{domain}_{suffix}",
            table,
            columns,
            schema=schema,
            postgresql_where=sa.text(where),
            postgresql_concurrently=concurrently,
            if_not_exists=True,
        )


def _group_if_failed() -> str:
    text = "left(coalesce(error_message, ''), 2000)"
    name = "'^[A-Za-z_][A-Za-z0-9_.]*:'"
    message = f"regexp_replace({text}, {name}, '')"
    for pattern, replacement in FOLDED:
        message = f"regexp_replace({message}, {pattern}, {replacement}, 'g')"
    fingerprint = f"left(coalesce(substring({text}, {name}), '') || {message}, 300)"
    return f"CASE WHEN status = 'FAILED' THEN CAST(md5({fingerprint}) AS uuid) END"
