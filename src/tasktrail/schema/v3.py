"""Version 3 of the library's schema: what a migration knows about legacy rows, and what it has come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from tasktrail.schema.v1 import VERSION_TABLE

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.operations import Operations

VERSION: Final = 3

TABLES: Final = (
    "tasktrail_migrations",
    "tasktrail_migration_tables",
    "tasktrail_migration_events",
    "tasktrail_ledger",
    "tasktrail_raw",
    "tasktrail_changes",
)


def upgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Create the tables of migrations, and the function that reads JSON without failing.

    Args:
        op: ``alembic.op``.
        schema: PostgreSQL schema of the library's tables.
    """
    _create_state(op, schema)
    _create_ledger(op, schema)
    prefix = f'"{schema}".' if schema else ""
    # One name for the three types that a legacy column may have. Only jsonb is known to be readable as jsonb:
    # json may hold \u0000, lone surrogates and numbers beyond numeric, text may hold anything.
    op.execute(
        f"CREATE FUNCTION {prefix}tasktrail_jsonb(jsonb) RETURNS jsonb "
        "LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT $1'"
    )
    for kind in ("json", "text"):
        op.execute(
            f"CREATE FUNCTION {prefix}tasktrail_jsonb(legacy {kind}) RETURNS jsonb "
            "LANGUAGE plpgsql IMMUTABLE STRICT AS "
            "'BEGIN RETURN legacy::jsonb; EXCEPTION WHEN data_exception OR program_limit_exceeded "
            "OR statement_too_complex THEN RETURN NULL; END'"
        )
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.insert(version).values(version=VERSION))


def downgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Drop what ``upgrade`` created."""
    prefix = f'"{schema}".' if schema else ""
    for kind in ("text", "json", "jsonb"):
        op.execute(f"DROP FUNCTION {prefix}tasktrail_jsonb({kind})")
    for name in reversed(TABLES):
        op.drop_table(name, schema=schema)
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.delete(version).where(version.c.version == VERSION))


def _create_state(op: Operations | ModuleType, schema: str | None) -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "tasktrail_migrations",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("phase", sa.String(20), nullable=False),
        sa.Column("phase_since", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("fingerprint", sa.String(32)),
        sa.Column("is_paused", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("is_holding", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("domains", sa.ARRAY(sa.String(63)), nullable=False),
        schema=schema,
    )
    op.create_table(
        "tasktrail_migration_tables",
        sa.Column("migration", sa.String(40), nullable=False),
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("bound", sa.Text),
        sa.Column("cursor", sa.Text),
        sa.Column("chunk", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("rows_done", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("errors", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", moment),
        sa.Column("finished_at", moment),
        sa.PrimaryKeyConstraint("migration", "table_name"),
        schema=schema,
    )
    op.create_table(
        "tasktrail_migration_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("migration", sa.String(40), nullable=False),
        sa.Column("happened_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("details", JSONB, server_default=sa.text("'{}'::jsonb"), nullable=False),
        schema=schema,
    )


def _create_ledger(op: Operations | ModuleType, schema: str | None) -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "tasktrail_ledger",
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("source_key", sa.Text, nullable=False),
        sa.Column("source_hash", sa.Uuid, nullable=False),
        sa.Column("disposition", sa.String(12), nullable=False),
        sa.Column("route", sa.String(20)),
        sa.Column("target_key", sa.Text),
        sa.Column("target_id", sa.BigInteger),
        sa.Column("reason", sa.String(60)),
        sa.Column("inferred", sa.ARRAY(sa.Text)),
        sa.Column("rule_version", sa.Integer, nullable=False),
        sa.Column("chunk", sa.Integer),
        sa.Column("deleted_at", moment),
        sa.PrimaryKeyConstraint("table_name", "source_key"),
        sa.CheckConstraint(
            "disposition IN ('migrated', 'consolidated', 'quarantined', 'archived')",
            name="ck_tasktrail_ledger_disposition",
        ),
        schema=schema,
    )
    op.create_index(
        "idx_tasktrail_ledger_group",
        "tasktrail_ledger",
        ["target_key", "route", "table_name", "disposition"],
        schema=schema,
        postgresql_where=sa.text("target_key IS NOT NULL AND deleted_at IS NULL"),
    )
    op.create_index(
        "idx_tasktrail_ledger_quarantined",
        "tasktrail_ledger",
        ["table_name", "reason"],
        schema=schema,
        postgresql_where=sa.text("disposition = 'quarantined' AND deleted_at IS NULL"),
    )
    op.create_table(
        "tasktrail_raw",
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("source_key", sa.Text, nullable=False),
        sa.Column("source_hash", sa.Uuid),
        sa.Column("raw", sa.Text, nullable=False),
        sa.Column("noted_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("accepted_at", moment),
        sa.Column("accepted_by", sa.Text),
        sa.Column("accepted_note", sa.Text),
        sa.PrimaryKeyConstraint("table_name", "source_key"),
        schema=schema,
    )
    op.create_table(
        "tasktrail_changes",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("side", sa.String(6), nullable=False),
        sa.Column("table_name", sa.String(63), nullable=False),
        sa.Column("source_key", sa.Text, nullable=False),
        sa.Column("operation", sa.String(1), nullable=False),
        sa.Column("old_row", sa.Text),
        sa.Column("noted_at", moment, server_default=sa.func.now(), nullable=False),
        schema=schema,
    )
