"""The application's database: bringing it to the newest schema."""

from __future__ import annotations

from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

MIGRATION_LOCK: Final = 7_237_341_991_004_771
"""Key of the advisory lock under which migrations run, so that two processes do not run them at once."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Apply the pending migrations.

    Args:
        engine: the database.
        revision: how far to go.
    """
    config = Config()
    config.set_main_option("script_location", "portfolio:alembic")
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
