"""The legacy tables exactly as production has them.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE task_status (
            id SERIAL PRIMARY KEY,
            task_type VARCHAR NOT NULL,
            status VARCHAR NOT NULL,
            resource_id INTEGER NOT NULL,
            error VARCHAR,
            task_metadata JSONB,
            created_at TIMESTAMP DEFAULT NOW(),
            updated_at TIMESTAMP DEFAULT NOW()
        )
        """
    )
    op.execute(
        """
        CREATE TABLE etfs (
            id VARCHAR PRIMARY KEY,
            symbol VARCHAR,
            name VARCHAR,
            currency VARCHAR,
            isin VARCHAR
        )
        """
    )
    op.execute(
        """
        CREATE TABLE etf_updates (
            id SERIAL PRIMARY KEY,
            etf_id VARCHAR NOT NULL REFERENCES etfs(id),
            update_type VARCHAR NOT NULL,
            start_date DATE NOT NULL,
            end_date DATE NOT NULL,
            status VARCHAR NOT NULL,
            created_at TIMESTAMP NOT NULL,
            completed_at TIMESTAMP,
            error VARCHAR,
            missing_dates DATE[],
            retry_count INTEGER NOT NULL DEFAULT 0,
            notes VARCHAR
        )
        """
    )
    op.execute(
        """
        CREATE TABLE daily_update_tracking (
            date DATE NOT NULL,
            update_type VARCHAR(50) NOT NULL,
            attempted BOOLEAN DEFAULT FALSE,
            data_found BOOLEAN DEFAULT FALSE,
            notes TEXT,
            PRIMARY KEY (date, update_type)
        )
        """
    )


def downgrade() -> None:
    for table in ("daily_update_tracking", "etf_updates", "etfs", "task_status"):
        op.drop_table(table)
