"""The library's own DDL, as versioned upgrades that an Alembic revision calls, and the check of a database.

Each ``vN`` module is frozen once released: a revision that was applied last year must still mean the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import NoSuchTableError

from tasktrail.errors import SchemaOutdated
from tasktrail.library import LIBRARY_TABLES, VERSION_TABLE
from tasktrail.registry import Domain
from tasktrail.schema import v1, v2, v3, v4, v5, v6

__all__ = ["HEAD", "LIBRARY_TABLES", "VERSIONS", "problems", "require", "v1", "v2", "v3", "v4", "v5", "v6"]

VERSIONS = (v1, v2, v3, v4, v5, v6)
"""All of them, in the order in which they are applied."""

HEAD = VERSIONS[-1].VERSION
"""Version of the library's schema that this release works with."""


def problems(db: Connection, domains: Iterable[Domain], *, schema: str | None) -> list[str]:
    """Compare a database with what this release needs.

    Args:
        db: a connection.
        domains: the registered domains.
        schema: where the library's own tables are; ``None`` for the search path.

    Returns:
        One sentence for each thing that is missing; empty when the database fits.
    """
    inspector = inspect(db)
    found: list[str] = []
    if not inspector.has_table(VERSION_TABLE, schema=schema):
        found.append(f"the table {_qualified(schema, VERSION_TABLE)} is missing")
    else:
        table = _qualified(schema, VERSION_TABLE)
        version = db.execute(text(f"SELECT max(version) FROM {table}")).scalar()  # noqa: S608  # a constant name
        if version != HEAD:
            found.append(f"its schema version is {version or 'unknown'}, this release needs {HEAD}")
    for domain in domains:
        table_schema = domain.model.__tracking__.schema
        name = str(domain.model.__table__.name)  # type: ignore[attr-defined]
        try:
            there = {column["name"] for column in inspector.get_columns(name, schema=table_schema)}
        except NoSuchTableError:
            found.append(f"the table {_qualified(table_schema, name)} is missing")
            continue
        wanted = [column.name for column in domain.model.__table__.columns]  # type: ignore[attr-defined]
        missing = [column for column in wanted if column not in there]
        if missing:
            found.append(f"{_qualified(table_schema, name)} lacks the columns {', '.join(missing)}")
    return found


def require(db: Connection, domains: Iterable[Domain], *, schema: str | None) -> None:
    """Make sure a database fits this release.

    Raises:
        SchemaOutdated: it does not; the message says what is missing and what to do.
    """
    found = problems(db, domains, schema=schema)
    if found:
        raise SchemaOutdated(
            f"the database is not ready: {'; '.join(found)}. Apply the pending migrations first"
        )


def _qualified(schema: str | None, name: str) -> str:
    return f"{schema}.{name}" if schema else name
