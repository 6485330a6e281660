"""Tokens, sessions, the audit, and operations on many rows, for the REST API and the dashboard.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

from tasktrail.schema import v6

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SCHEMA = "tracking"


def upgrade() -> None:
    v6.upgrade(op, schema=SCHEMA)


def downgrade() -> None:
    v6.downgrade(op, schema=SCHEMA)
