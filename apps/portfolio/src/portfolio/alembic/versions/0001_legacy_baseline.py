"""The legacy tables exactly as production has them; where they are already there, they are left as they are.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tasktrail import SchemaOutdated

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES: Final = {
    "task_status": """
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
        """,
    "etfs": """
        CREATE TABLE etfs (
            id VARCHAR PRIMARY KEY,
            symbol VARCHAR,
            name VARCHAR,
            currency VARCHAR,
            isin VARCHAR
        )
        """,
    "etf_updates": """
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
        """,
    "daily_update_tracking": """
        CREATE TABLE daily_update_tracking (
            date DATE NOT NULL,
            update_type VARCHAR(50) NOT NULL,
            attempted BOOLEAN DEFAULT FALSE,
            data_found BOOLEAN DEFAULT FALSE,
            notes TEXT,
            PRIMARY KEY (date, update_type)
        )
        """,
}

COLUMNS: Final = {
    "task_status": "id task_type status resource_id error task_metadata created_at updated_at",
    "etfs": "id symbol name currency isin",
    "etf_updates": "id etf_id update_type start_date end_date status created_at completed_at error"
    " missing_dates retry_count notes",
    "daily_update_tracking": "date update_type attempted data_found notes",
}
"""What a table that is already there must have. Types, defaults and indexes differ between deployments."""


def upgrade() -> None:
    """Create the tables that are not there.

    Raises:
        SchemaOutdated: a table is there, but lacks a column; nothing was changed.
    """
    for table, ddl in TABLES.items():
        there = _columns(table)
        missing = [name for name in COLUMNS[table].split() if name not in there]
        if not there:
            op.execute(ddl)
        elif missing:
            raise SchemaOutdated(
                f"the database has a table {table} already, without {', '.join(missing)}: it is not the one "
                "that portfolio takes over. Rename it, or correct TASKTRAIL_DATABASE_URL"
            )


def downgrade() -> None:
    """Drop the tables, as long as there is nothing in them.

    Raises:
        SchemaOutdated: a table holds rows; nothing was changed.
    """
    tables = list(reversed(TABLES))
    if not op.get_context().as_sql:
        for table in tables:
            if op.get_bind().scalar(sa.select(sa.func.count()).select_from(sa.table(table))):
                raise SchemaOutdated(f"{table} holds rows, which going back before revision 0001 would drop")
    for table in tables:
        op.drop_table(table)


def _columns(table: str) -> set[str]:
    if op.get_context().as_sql:
        return set()
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(table):
        return set()
    return {column["name"] for column in inspector.get_columns(table)}
