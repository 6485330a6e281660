"""Exchange rates, and the table that tracks their updates, in the schema ``tracking``.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tasktrail.schema import v1

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "tracking"


def upgrade() -> None:
    op.create_table(
        "exchange_rates",
        sa.Column("date", sa.Date, primary_key=True),
        sa.Column("currency", sa.String(3), primary_key=True),
        sa.Column("rate", sa.Numeric(20, 6), nullable=False),
    )
    v1.upgrade(op, schema=SCHEMA)
    v1.create_tracking_table(
        op,
        "exchange_rate_update_tracking",
        domain="exchange_rate",
        schema=SCHEMA,
        items=[
            sa.Column("update_date", sa.Date, nullable=False),
            sa.Column("base_currency", sa.String(3), nullable=False),
            sa.Column("target_currencies", postgresql.ARRAY(sa.String(3)), nullable=False),
            sa.Column("success_count", sa.Integer, server_default=sa.text("0"), nullable=False),
            sa.Column("total_count", sa.Integer, server_default=sa.text("0"), nullable=False),
            sa.Column("source", sa.String(50), nullable=False),
            sa.UniqueConstraint("update_date", "base_currency", name="uq_exchange_rate_update"),
        ],
    )


def downgrade() -> None:
    op.drop_table("exchange_rate_update_tracking", schema=SCHEMA)
    v1.downgrade(op, schema=SCHEMA)
    op.execute(f"DROP SCHEMA {SCHEMA}")
    op.drop_table("exchange_rates")
