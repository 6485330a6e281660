"""The application's database: bringing it to the newest schema, and making sure that it is there."""

from __future__ import annotations

from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from tasktrail import SchemaOutdated, TasktrailError, Trail
from tasktrail.schema import problems

MIGRATION_LOCK: Final = 7_237_341_991_004_771
"""Key of the advisory lock under which migrations run, so that two processes do not run them at once."""


class RevisionUnknown(TasktrailError):
    """The database is at a revision that this release does not have.

    Attributes:
        revision: the revision.
    """

    def __init__(self, revision: str) -> None:
        self.revision = revision
        super().__init__(
            f"the database is at revision {revision}, which this release of portfolio does not have: "
            "install the release that made it, or a newer one"
        )


def configuration(connection: Connection | None = None) -> Config:
    """Return what Alembic needs to know.

    Args:
        connection: the connection to migrate over; by default one to ``TASKTRAIL_DATABASE_URL``.
    """
    config = Config()
    config.set_main_option("script_location", "portfolio:alembic")
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Apply the pending migrations, all of them or none.

    Args:
        engine: the database.
        revision: how far to go.

    Raises:
        RevisionUnknown: the database is newer than this release; nothing was changed.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        current_revision(connection)
        command.upgrade(configuration(connection), revision)


def current_revision(connection: Connection) -> str | None:
    """Return the revision a database is at; ``None`` before the first migration.

    Args:
        connection: the database.

    Raises:
        RevisionUnknown: this release does not have that revision.
    """
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None:
        try:
            _scripts().get_revision(revision)
        except CommandError as error:
            raise RevisionUnknown(revision) from error
    return revision


def require_ready(trail: Trail) -> None:
    """Make sure that database and broker answer, and that all migrations are applied.

    Args:
        trail: the application's.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
        SchemaOutdated: migrations are missing, or the tables were changed by hand.
        RevisionUnknown: the database is newer than this release.
        BrokerUnavailable: the broker cannot be reached.
    """
    with trail.engines.pooled() as db:
        at, head = current_revision(db), _scripts().get_current_head()
        if at != head:
            place = f"at revision {at}" if at else "without a single migration"
            raise SchemaOutdated(
                f"the database is {place}, this release needs revision {head}: run `portfolio db upgrade`"
            )
        found = problems(db, trail.registry, schema=trail.schema)
    if found:
        raise SchemaOutdated(
            f"the tables are not as the migrations made them: {'; '.join(found)}. "
            "Put back what was changed; `portfolio db upgrade` cannot"
        )
    trail.check()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(configuration())
