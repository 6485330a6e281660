"""The library's own DDL, as versioned upgrades that an Alembic revision calls, and the check of a database.

Each ``vN`` module is frozen once released: a revision that was applied last year must still mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.exc import NoSuchTableError

from tasktrail import partitions
from tasktrail.errors import ConfigurationError, SchemaOutdated
from tasktrail.library import LIBRARY_TABLES, VERSION_TABLE
from tasktrail.partitioning import qualified
from tasktrail.registry import Domain
from tasktrail.schema import v1, v2, v3, v4, v5, v6

__all__ = [
    "HEAD",
    "LIBRARY_TABLES",
    "VERSIONS",
    "create_missing",
    "is_kept_by_tasktrail",
    "problems",
    "require",
    "v1",
    "v2",
    "v3",
    "v4",
    "v5",
    "v6",
]

VERSIONS = (v1, v2, v3, v4, v5, v6)
"""All of them, in the order in which they are applied."""

HEAD = VERSIONS[-1].VERSION
"""Version of the library's schema that this release works with."""


KIND = text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:table)")


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
    version = _version(db, schema)
    if version is None:
        found.append(f"the table {_qualified(schema, VERSION_TABLE)} is missing")
    elif version != HEAD:
        found.append(f"its schema version is {version or 'unknown'}, this release needs {HEAD}")
    for domain in domains:
        table_schema = domain.model.__tracking__.schema
        name = str(domain.model.__table__.name)  # type: ignore[attr-defined]
        try:
            there = {column["name"] for column in inspector.get_columns(name, schema=table_schema)}
        except NoSuchTableError:
            found.append(f"the table {_qualified(table_schema, name)} is missing")
            continue
        kind = "p" if domain.model.__tracking__.partition_days is not None else "r"
        if db.execute(KIND, {"table": qualified(table_schema, name)}).scalar() != kind:
            state = "not partitioned" if kind == "p" else "partitioned"
            found.append(f"{_qualified(table_schema, name)} is {state}, unlike its model")
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


def create_missing(db: Connection, domains: Collection[Domain], *, schema: str | None) -> list[str]:
    """Create what a database lacks, for development and tests; a deployment applies Alembic revisions.

    A table that is there is left as it is, even if it lacks a column.

    Args:
        db: a connection, within a transaction that the caller commits.
        domains: the registered domains; all tables of their metadata are created.
        schema: where the library's own tables go; ``None`` for the search path.

    Returns:
        What was created: versions of the library's schema, and names of tables and partitions.

    Raises:
        ConfigurationError: Alembic is not installed.
    """
    try:
        from alembic.migration import MigrationContext  # noqa: PLC0415  # not needed to run
        from alembic.operations import Operations  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError("Alembic makes the tables; install it: pip install alembic") from None
    operations = Operations(MigrationContext.configure(db))
    there = _version(db, schema) or 0
    created = []
    for version in VERSIONS:
        if there < version.VERSION:
            version.upgrade(operations, schema=schema)
            created.append(f"version {version.VERSION} of the library's tables")
    inspector = inspect(db)
    for metadata in {domain.model.metadata for domain in domains}:  # type: ignore[attr-defined]  # mapped
        created += [
            str(table)
            for table in metadata.sorted_tables
            if not inspector.has_table(table.name, schema=table.schema)
        ]
        metadata.create_all(db)
    for domain in domains:
        if domain.model.__tracking__.partition_days is not None:
            created += partitions.make_ahead(db, domain.model)
    return created


def is_kept_by_tasktrail(name: str | None, metadata: MetaData) -> bool:
    """Say whether a table is one that no model describes: for ``include_name`` of Alembic's autogenerate.

    These are the library's own tables, and the partitions and natural keys of partitioned tables.

    Args:
        name: the table's name, without its schema.
        metadata: that of the application's models.
    """
    partitioned = {
        table.name
        for table in metadata.tables.values()
        if table.dialect_kwargs.get("postgresql_partition_by")
    }
    table = name or ""
    parts = (re.escape(one) for one in partitioned)
    is_part = re.fullmatch(rf"({'|'.join(parts)})_(p\d{{8}}|default|keys)", table) if partitioned else None
    return table in LIBRARY_TABLES or is_part is not None


def _version(db: Connection, schema: str | None) -> int | None:
    """Return the version of the library's tables: 0 when it is unknown, None without the table."""
    if not inspect(db).has_table(VERSION_TABLE, schema=schema):
        return None
    table = qualified(schema, VERSION_TABLE)
    return db.execute(text(f"SELECT max(version) FROM {table}")).scalar() or 0  # noqa: S608  # a quoted name


def _qualified(schema: str | None, name: str) -> str:
    return f"{schema}.{name}" if schema else name
