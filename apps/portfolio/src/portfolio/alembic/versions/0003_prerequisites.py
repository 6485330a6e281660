"""Prerequisites between tracked jobs, and counters of rare events.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

from tasktrail.schema import v2

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "tracking"


def upgrade() -> None:
    v2.upgrade(op, schema=SCHEMA)


def downgrade() -> None:
    v2.downgrade(op, schema=SCHEMA)
