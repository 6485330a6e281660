"""Rollups, and on each tracking table the group of failures and the indexes that history is read by.

It comes before the first release, so the tables are small: the new column writes them anew, and since all
revisions are applied in one transaction, or none, the indexes are not built concurrently.

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
        v5.add_failure_group(op, table, schema=SCHEMA)
        v5.create_indexes(op, table, domain=domain, schema=SCHEMA, concurrently=False)


def downgrade() -> None:
    for domain, table in DOMAINS.items():
        op.drop_index(f"idx_{domain}_ended", table, schema=SCHEMA)
        op.drop_index(f"idx_{domain}_stopped", table, schema=SCHEMA, if_exists=True)
        op.drop_column(table, "failure_group", schema=SCHEMA)
    v5.downgrade(op, schema=SCHEMA)
