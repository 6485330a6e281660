"""Comparisons, drift and archives of the migration; an ETF's updates go when the ETF goes.

Old workers may delete an ETF whose updates are mirrored here, and must not fail because of them.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

from tasktrail.schema import v4

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "tracking"
FOREIGN_KEY = "etf_updates_etf_id_fkey"


def upgrade() -> None:
    v4.upgrade(op, schema=SCHEMA)
    _refer_to_etfs(ondelete="CASCADE")


def downgrade() -> None:
    _refer_to_etfs(ondelete=None)
    v4.downgrade(op, schema=SCHEMA)


def _refer_to_etfs(ondelete: str | None) -> None:
    op.drop_constraint(FOREIGN_KEY, "etf_updates", schema=SCHEMA)
    op.create_foreign_key(
        FOREIGN_KEY,
        "etf_updates",
        "etfs",
        ["etf_id"],
        ["id"],
        source_schema=SCHEMA,
        ondelete=ondelete,
    )
