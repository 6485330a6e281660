"""Rollups, and an index by the time at which rows ended on each tracking table.

All revisions are applied in one transaction, or none, so the indexes cannot be built concurrently. On a large
table build them by hand before, with CREATE INDEX CONCURRENTLY; they are left as they are then.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

from tasktrail.schema import v5

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "tracking"
DOMAINS = {
    "exchange_rate": "exchange_rate_update_tracking",
    "etf_update": "etf_updates",
    "daily_update": "daily_update_tracking",
    "etf_creation": "etf_creation_tracking",
}


def upgrade() -> None:
    v5.upgrade(op, schema=SCHEMA)
    op.execute("SET LOCAL lock_timeout = '5s'")
    for domain, table in DOMAINS.items():
        v5.create_index_of_ended(op, table, domain=domain, schema=SCHEMA, concurrently=False)


def downgrade() -> None:
    for domain, table in DOMAINS.items():
        op.drop_index(f"idx_{domain}_ended", table, schema=SCHEMA)
    v5.downgrade(op, schema=SCHEMA)
