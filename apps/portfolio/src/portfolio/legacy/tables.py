"""The three legacy tables and the one they refer to, frozen as they stand in production.

Alembic's revision 0001 makes the same tables; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    ARRAY,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

LEGACY: Final = MetaData()

TASK_STATUS: Final = Table(
    "task_status",
    LEGACY,
    Column("id", Integer, primary_key=True),
    Column("task_type", String, nullable=False),
    Column("status", String, nullable=False),
    Column("resource_id", Integer, nullable=False),
    Column("error", String),
    Column("task_metadata", JSONB),
    Column("created_at", DateTime, server_default=func.now()),
    Column("updated_at", DateTime, server_default=func.now()),
)

ETFS: Final = Table(
    "etfs",
    LEGACY,
    Column("id", String, primary_key=True),
    Column("symbol", String),
    Column("name", String),
    Column("currency", String),
    Column("isin", String),
)
"""Not migrated: the new system goes on with this table."""

ETF_UPDATES: Final = Table(
    "etf_updates",
    LEGACY,
    Column("id", Integer, primary_key=True),
    Column("etf_id", String, ForeignKey("etfs.id"), nullable=False),
    Column("update_type", String, nullable=False),
    Column("start_date", Date, nullable=False),
    Column("end_date", Date, nullable=False),
    Column("status", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("completed_at", DateTime),
    Column("error", String),
    Column("missing_dates", ARRAY(Date)),
    Column("retry_count", Integer, nullable=False, server_default=text("0")),
    Column("notes", String),
)

DAILY_UPDATES: Final = Table(
    "daily_update_tracking",
    LEGACY,
    Column("date", Date, primary_key=True),
    Column("update_type", String(50), primary_key=True),
    Column("attempted", Boolean, server_default=text("false")),
    Column("data_found", Boolean, server_default=text("false")),
    Column("notes", Text),
)

MIGRATED: Final = (TASK_STATUS, ETF_UPDATES, DAILY_UPDATES)
"""The tables that are left behind."""
