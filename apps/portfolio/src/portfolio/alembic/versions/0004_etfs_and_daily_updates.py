"""ETF prices, and the tables that track ETF updates, daily updates and ETF creation.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tasktrail.schema import v1

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "tracking"


def upgrade() -> None:
    op.create_table(
        "etf_prices",
        sa.Column("etf_id", sa.String, sa.ForeignKey("etfs.id"), primary_key=True),
        sa.Column("date", sa.Date, primary_key=True),
        sa.Column("source", sa.String(50), primary_key=True),
        sa.Column("price", sa.Numeric(20, 6), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("original_price", sa.Numeric(20, 6), nullable=False),
        sa.Column("original_currency", sa.String(3), nullable=False),
    )
    v1.create_tracking_table(
        op,
        "etf_updates",
        domain="etf_update",
        schema=SCHEMA,
        items=[
            sa.Column("etf_id", sa.String, sa.ForeignKey("etfs.id"), nullable=False),
            sa.Column("update_type", sa.String, nullable=False),
            sa.Column("start_date", sa.Date, nullable=False),
            sa.Column("end_date", sa.Date, nullable=False),
            sa.Column("missing_dates", postgresql.ARRAY(sa.Date)),
            sa.Column("notes", sa.Text),
        ],
    )
    v1.create_tracking_table(
        op,
        "daily_update_tracking",
        domain="daily_update",
        schema=SCHEMA,
        items=[
            sa.Column("update_date", sa.Date, nullable=False),
            sa.Column("update_type", sa.String(50), nullable=False),
            sa.Column("data_found", sa.Boolean),
            sa.Column("notes", sa.Text),
            sa.UniqueConstraint("update_date", "update_type", name="uq_daily_update"),
        ],
    )
    v1.create_tracking_table(
        op,
        "etf_creation_tracking",
        domain="etf_creation",
        schema=SCHEMA,
        items=[
            sa.Column("etf_id", sa.String, nullable=False),
            sa.Column("resource_id", sa.Integer),
            sa.Column("task_metadata", postgresql.JSONB),
            sa.UniqueConstraint("etf_id", name="uq_etf_creation"),
        ],
    )


def downgrade() -> None:
    for table in ("etf_creation_tracking", "daily_update_tracking", "etf_updates"):
        op.drop_table(table, schema=SCHEMA)
    op.drop_table("etf_prices")
