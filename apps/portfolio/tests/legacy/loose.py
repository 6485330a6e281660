"""Legacy tables as the loosest deployment has them, and how rows of the tests get into them.

Production has constraints that keep some of the dirt out. A deployment without them must be migrated as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from apps.portfolio.tests.legacy.case import ETFS
from sqlalchemy import Connection

LOOSEN: Final = """
ALTER TABLE task_status
    ALTER id TYPE bigint, ALTER resource_id TYPE bigint, ALTER task_metadata TYPE text,
    ALTER task_type DROP NOT NULL, ALTER status DROP NOT NULL, ALTER resource_id DROP NOT NULL;
ALTER TABLE etf_updates
    DROP CONSTRAINT etf_updates_etf_id_fkey, ALTER id TYPE bigint,
    ALTER etf_id DROP NOT NULL, ALTER update_type DROP NOT NULL, ALTER start_date DROP NOT NULL,
    ALTER end_date DROP NOT NULL, ALTER status DROP NOT NULL, ALTER created_at DROP NOT NULL,
    ALTER retry_count DROP NOT NULL;
ALTER TABLE daily_update_tracking
    DROP CONSTRAINT daily_update_tracking_pkey, ADD id bigserial PRIMARY KEY,
    ALTER date DROP NOT NULL, ALTER update_type DROP NOT NULL, ALTER update_type TYPE text;
"""
"""Makes of the tables of revision 0001 tables that take every row of the tests."""


def loosen(db: Connection) -> None:
    """Make the legacy tables take any row, and add the ETFs that the rows speak of."""
    db.exec_driver_sql(LOOSEN)
    add_etfs(db)


def add_etfs(db: Connection) -> None:
    """Add the ETFs that the rows of the tests speak of."""
    db.exec_driver_sql(
        "INSERT INTO etfs (id, symbol) SELECT id, id FROM unnest(%s::text[]) AS id", (list(ETFS),)
    )


def add_rows(db: Connection, source: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a legacy table.

    Args:
        db: the database; the caller commits.
        source: the table.
        rows: by column, as in the cases; those without an id get one.
    """
    for row in rows:
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        db.exec_driver_sql(f"INSERT INTO {source} ({names}) VALUES ({places})", tuple(row.values()))
