"""Ledger, quarantine and state of the migration of the legacy tables.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

from tasktrail.schema import v3

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = "tracking"


def upgrade() -> None:
    v3.upgrade(op, schema=SCHEMA)


def downgrade() -> None:
    v3.downgrade(op, schema=SCHEMA)
