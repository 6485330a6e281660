"""Counts events that are too rare to be worth a row each, per domain."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from tasktrail.library import library
from tasktrail.tracker import Database

STALE_WRITES: Final = "stale_writes"
"""Writes of attempts that no longer owned their row; each was rejected."""

LEASE_EXPIRIES: Final = "lease_expiries"
"""Attempts that were given up because their lease ran out."""


def add(db: Database, schema: str | None, domain: str, name: str, amount: int = 1) -> None:
    """Add to a counter.

    Args:
        db: session or connection; the caller commits.
        schema: where the library's own tables are.
        domain: the domain it happened in.
        name: what happened.
        amount: how often.
    """
    table = library(schema).counters
    statement = insert(table).values(domain=domain, name=name, value=amount)
    db.execute(
        statement.on_conflict_do_update(
            index_elements=["domain", "name"],
            set_={"value": table.c.value + statement.excluded.value, "updated_at": func.now()},
        )
    )


def read(db: Database, schema: str | None) -> dict[tuple[str, str], int]:
    """Return all counters, by domain and name."""
    table = library(schema).counters
    return {(row.domain, row.name): row.value for row in db.execute(select(table))}
