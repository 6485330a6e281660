"""How Alembic reaches the database and the models."""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, make_url
from sqlalchemy.schema import SchemaItem

from portfolio.models import TRACKING_SCHEMA, Base
from tasktrail import Settings
from tasktrail.schema import LIBRARY_TABLES

LEGACY_TABLES = frozenset({"task_status", "etf_updates", "daily_update_tracking"})
"""Tables in ``public`` that belong to the old system; the models do not know them."""


def is_compared(item: SchemaItem, name: str | None, kind: str, _: bool, __: SchemaItem | None) -> bool:  # noqa: FBT001
    """Leave the legacy tables and the library's own out of autogenerate."""
    if kind != "table":
        return True
    schema = getattr(item, "schema", None)
    return not (schema is None and name in LEGACY_TABLES) and name not in LIBRARY_TABLES


def is_looked_into(name: str | None, kind: str, _: object) -> bool:
    """Look into ``public`` and the tracking schema only."""
    return kind != "schema" or name in {None, TRACKING_SCHEMA}


def migrate(connection: Connection | None) -> None:
    """Run the migrations, or print them when there is no connection."""
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        include_schemas=True,
        include_name=is_looked_into,
        include_object=is_compared,
        compare_type=True,
        compare_server_default=True,
        literal_binds=context.is_offline_mode(),
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Migrate over the caller's connection, else over one of our own."""
    given: Connection | None = context.config.attributes.get("connection")
    if context.is_offline_mode() or given is not None:
        migrate(given)
        return
    url = Settings.load().database_url
    if url is None:
        raise CommandError("TASKTRAIL_DATABASE_URL is not set; `portfolio db upgrade` finds the embedded one")
    driver = make_url(url.get_secret_value()).set(drivername="postgresql+psycopg")
    engine = create_engine(driver, poolclass=NullPool)
    with engine.connect() as connection:
        migrate(connection)
        connection.commit()


main()
