"""Version 6 of the library's schema: who may look on and steer, what they did, and what runs for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from tasktrail.schema.v1 import VERSION_TABLE

if TYPE_CHECKING:
    from types import ModuleType

    from alembic.operations import Operations

VERSION: Final = 6

TABLES: Final = (
    "tasktrail_tokens",
    "tasktrail_sessions",
    "tasktrail_logins",
    "tasktrail_audit",
    "tasktrail_operations",
)


def upgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Create the tables of tokens, sessions, logins, the audit, and operations on many rows.

    Args:
        op: ``alembic.op``.
        schema: PostgreSQL schema of the library's tables.
    """
    _create_access(op, schema)
    _create_operations(op, schema)
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.insert(version).values(version=VERSION))


def downgrade(op: Operations | ModuleType, *, schema: str | None = None) -> None:
    """Drop what ``upgrade`` created."""
    for name in reversed(TABLES):
        op.drop_table(name, schema=schema)
    version = sa.table(VERSION_TABLE, sa.column("version", sa.Integer), schema=schema)
    op.execute(sa.delete(version).where(version.c.version == VERSION))


def _create_access(op: Operations | ModuleType, schema: str | None) -> None:
    moment = sa.DateTime(timezone=True)
    prefix = f"{schema}." if schema else ""
    op.create_table(
        "tasktrail_tokens",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("last_used_at", moment),
        sa.Column("expires_at", moment),
        sa.Column("revoked_at", moment),
        sa.UniqueConstraint("secret_hash", name="uq_tasktrail_tokens_secret"),
        sa.CheckConstraint("role IN ('viewer', 'operator')", name="ck_tasktrail_tokens_role"),
        schema=schema,
    )
    op.create_index(
        "uq_tasktrail_tokens_name",
        "tasktrail_tokens",
        ["name"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "tasktrail_sessions",
        sa.Column("secret_hash", sa.LargeBinary, primary_key=True),
        sa.Column(
            "token_id",
            sa.BigInteger,
            sa.ForeignKey(f"{prefix}tasktrail_tokens.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        schema=schema,
    )
    op.create_table(
        "tasktrail_logins",
        sa.Column("address", sa.String(64), primary_key=True),
        sa.Column("began_at", moment, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        schema=schema,
    )
    op.create_table(
        "tasktrail_audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("happened_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("domain", sa.String(63)),
        sa.Column("tracking_id", sa.BigInteger),
        sa.Column("filter", JSONB),
        sa.Column("count", sa.BigInteger),
        sa.Column("details", JSONB, server_default=sa.text("'{}'::jsonb"), nullable=False),
        schema=schema,
    )


def _create_operations(op: Operations | ModuleType, schema: str | None) -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "tasktrail_operations",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
        sa.Column("domain", sa.String(63), nullable=False),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("filter", JSONB, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("rate", sa.Integer, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), server_default="running", nullable=False),
        sa.Column("expected", sa.BigInteger, nullable=False),
        sa.Column("done", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("cursor", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("as_of", moment, server_default=sa.func.now(), nullable=False),
        sa.Column("claimed_by", sa.Uuid),
        sa.Column("heartbeat_at", moment),
        sa.Column("finished_at", moment),
        sa.Column("error", sa.Text),
        sa.CheckConstraint("action IN ('retry', 'cancel')", name="ck_tasktrail_operations_action"),
        sa.CheckConstraint(
            "state IN ('running', 'completed', 'stopped', 'failed')", name="ck_tasktrail_operations_state"
        ),
        schema=schema,
    )
    op.create_index(
        "idx_tasktrail_operations_running",
        "tasktrail_operations",
        ["id"],
        schema=schema,
        postgresql_where=sa.text("state = 'running'"),
    )
