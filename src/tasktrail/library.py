"""The library's own tables, in a schema the application chooses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    func,
    text,
)

VERSION_TABLE: Final = "tasktrail_version"
PREREQUISITE_TABLE: Final = "tasktrail_prerequisites"
COUNTER_TABLE: Final = "tasktrail_counters"
MIGRATION_TABLE: Final = "tasktrail_migrations"
ROLLUP_TABLE: Final = "tasktrail_rollups"
ROLLUP_STATE_TABLE: Final = "tasktrail_rollup_state"
MIGRATION_PARTS: Final = frozenset(
    {
        "tasktrail_migration_tables",
        "tasktrail_migration_events",
        "tasktrail_ledger",
        "tasktrail_raw",
        "tasktrail_changes",
        "tasktrail_comparisons",
        "tasktrail_drift",
        "tasktrail_archives",
    }
)
"""The tables that only a migration works with; it does so in SQL of its own."""

ACCESS_PARTS: Final = frozenset(
    {
        "tasktrail_tokens",
        "tasktrail_sessions",
        "tasktrail_logins",
        "tasktrail_audit",
        "tasktrail_operations",
    }
)
"""The tables of those who look on and steer from outside; only ``tasktrail.access`` works with them."""

LIBRARY_TABLES: Final = (
    frozenset({VERSION_TABLE, PREREQUISITE_TABLE, COUNTER_TABLE, MIGRATION_TABLE})
    | {ROLLUP_TABLE, ROLLUP_STATE_TABLE}
    | MIGRATION_PARTS
    | ACCESS_PARTS
)
"""Names of the library's own tables, for an application's ``include_object`` in Alembic."""


@dataclass(frozen=True, slots=True)
class Library:
    """The library's own tables.

    Attributes:
        version: which versions of the library's schema were applied.
        prerequisites: which row waits for which.
        counters: what happened how often, per domain; for events too rare to be worth a row each.
        migrations: how far the migration of a system's own tables has come; as much of it as others read.
        rollups: figures of each minute and each hour, by domain and by what happened.
        rollup_state: of which time a domain has rollups.
    """

    version: Table
    prerequisites: Table
    counters: Table
    migrations: Table
    rollups: Table
    rollup_state: Table


@cache
def library(schema: str | None) -> Library:
    """Return the library's tables in a schema.

    Args:
        schema: the PostgreSQL schema; ``None`` for the search path.
    """
    metadata = MetaData(schema=schema)
    moment = DateTime(timezone=True)
    return Library(
        version=Table(
            VERSION_TABLE,
            metadata,
            Column("version", Integer, primary_key=True),
            Column("applied_at", moment, server_default=func.now(), nullable=False),
        ),
        prerequisites=Table(
            PREREQUISITE_TABLE,
            metadata,
            Column("domain", String(63), nullable=False),
            Column("tracking_id", BigInteger, nullable=False),
            Column("needs_domain", String(63), nullable=False),
            Column("needs_id", BigInteger, nullable=False),
            Column("if_unmet", String(10), nullable=False),
            Column("met_at", moment),
            PrimaryKeyConstraint("domain", "tracking_id", "needs_domain", "needs_id"),
            CheckConstraint(
                "(domain, tracking_id) <> (needs_domain, needs_id)", name="ck_tasktrail_prerequisites_self"
            ),
            CheckConstraint(
                "if_unmet IN ('cancel', 'wait', 'proceed')", name="ck_tasktrail_prerequisites_if_unmet"
            ),
            Index(
                "idx_tasktrail_prerequisites_unmet",
                "needs_domain",
                "needs_id",
                postgresql_where=text("met_at IS NULL"),
            ),
        ),
        counters=Table(
            COUNTER_TABLE,
            metadata,
            Column("domain", String(63), primary_key=True),
            Column("name", String(63), primary_key=True),
            Column("value", BigInteger, nullable=False),
            Column("updated_at", moment, server_default=func.now(), nullable=False),
        ),
        migrations=Table(
            MIGRATION_TABLE,
            metadata,
            Column("name", String(40), primary_key=True),
            Column("is_holding", Boolean, server_default=text("false"), nullable=False),
            Column("domains", ARRAY(String(63)), nullable=False),
        ),
        rollups=Table(
            ROLLUP_TABLE,
            metadata,
            Column("domain", String(63), primary_key=True),
            Column("width", Integer, primary_key=True, autoincrement=False),
            Column("start", moment, primary_key=True),
            Column("event", String(20), primary_key=True),
            *(Column(name, BigInteger, nullable=False) for name in ("rows", "retried", "attempts")),
            *(Column(f"{name}_seconds", Double, nullable=False) for name in ("running", "waiting")),
            *(
                Column(f"{name}_{part}", ARRAY(kind), nullable=False)
                for name in ("running", "waiting", "attempts")
                for part, kind in (("classes", Integer), ("rows", BigInteger))
            ),
        ),
        rollup_state=Table(
            ROLLUP_STATE_TABLE,
            metadata,
            Column("domain", String(63), primary_key=True),
            Column("rolled_to", moment, nullable=False),
            Column("built_from", moment, nullable=False),
            Column("kept_from", moment),
            Column("audited_to", moment),
            Column("slice_seconds", Integer, server_default=text("3600"), nullable=False),
            Column("rolled_at", moment, server_default=func.now(), nullable=False),
        ),
    )
