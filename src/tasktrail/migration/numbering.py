"""The ids of both sides where legacy ids are kept: they must never meet, and the old shape must hold them."""

from __future__ import annotations

from typing import Final

from tasktrail.errors import MigrationError
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import qualified, quoted
from tasktrail.migration.plan import Route, TableMigration
from tasktrail.migration.session import Session

FIRST_NEW_ID: Final = 2**31
"""First id of the new side while the legacy side is the truth; a legacy SERIAL never gets there."""

ROOM: Final = 1_000_000
"""How many ids are left to old workers that still add rows after the cutover."""


def number_apart(session: Session, route: Route) -> None:
    """Let the new side number its rows where no legacy id will ever be.

    Args:
        session: within a transaction.
        route: one that keeps ids.

    Raises:
        MigrationError: the target has no sequence for its ids.
    """
    last = session.value(f"SELECT coalesce(max(id), 0) FROM {qualified(route.target)}")
    _restart(session, route, max(last + 1, FIRST_NEW_ID))


def number_legacy_on(session: Session, table: TableMigration) -> None:
    """Let the legacy side number its rows after those that were written back.

    Args:
        session: a connection; this is not undone with its transaction, and harmless, since it only goes up.
        table: the legacy table, with one column as its key.
    """
    source, key = qualified(table.source), table.key[0]
    legacy = _sequence_of(session, source, key)
    if legacy is not None:
        session.run(
            f"SELECT setval({literal(legacy)}, newest) FROM (SELECT max({quoted(key)})::bigint AS newest "
            f"FROM {source} WHERE {quoted(key)} < {FIRST_NEW_ID}) s "
            f"WHERE newest > (SELECT last_value FROM {legacy})"
        )


def number_on(session: Session, table: TableMigration, route: Route) -> None:
    """Let the new side number its rows after the legacy ones, so that the old shape can hold them.

    Args:
        session: within a transaction.
        table: the legacy table.
        route: one that keeps ids.

    Raises:
        MigrationError: the target has no sequence for its ids.
    """
    key = quoted(table.key[0])
    source, target = qualified(table.source), qualified(route.target)
    last = session.value(
        f"SELECT greatest((SELECT max({key})::bigint FROM {source} WHERE {key} < {FIRST_NEW_ID}), "
        f"(SELECT max(id) FROM {target} WHERE id < {FIRST_NEW_ID}), 0)"
    )
    _restart(session, route, last + ROOM)


def _restart(session: Session, route: Route, first: int) -> None:
    target = qualified(route.target)
    sequence = _sequence_of(session, target, "id")
    if sequence is None:
        raise MigrationError(f"{route.target}.id has no sequence, so new rows would get no ids")
    # Unlike ALTER SEQUENCE it needs no owner, and is not undone with the transaction.
    session.run(f"SELECT setval({literal(sequence)}, {first}, FALSE)")


def _sequence_of(session: Session, table: str, column: str) -> str | None:
    found = session.value("SELECT pg_get_serial_sequence(%(table)s, %(column)s)", table=table, column=column)
    return None if found is None else str(found)
