"""The ids of both sides where legacy ids are kept: they must never meet, and the old shape must hold them."""

from __future__ import annotations

from typing import Final

from tasktrail.errors import MigrationError
from tasktrail.migration.names import qualified, quoted
from tasktrail.migration.plan import Route, TableMigration
from tasktrail.migration.session import Session

FIRST_NEW_ID: Final = 2**31
"""First id of the new side while the legacy side is the truth; a legacy SERIAL never gets there."""

ROOM: Final = 1_000_000
"""How many ids are left to old workers that still add rows after the cutover."""


def number_apart(session: Session, route: Route) -> None:
    """Let the new side number its rows where no legacy id will ever be, from the commit on.

    Args:
        session: within the transaction in which the legacy side is, or becomes, the truth.
        route: one that keeps ids.

    Raises:
        MigrationError: the target has no sequence for its ids.
    """
    last = session.value(f"SELECT coalesce(max(id), 0) FROM {qualified(route.target)}")
    _restart(session, _sequence_of(session, route), max(last + 1, FIRST_NEW_ID))


def number_on(session: Session, table: TableMigration, route: Route) -> None:
    """Let the new side number its rows after the legacy ones, so that the old shape can hold them.

    Args:
        session: within the transaction that makes the new side the truth, nobody writing to either table.
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
    _restart(session, _sequence_of(session, route), last + ROOM)


def number_legacy_on(session: Session, table: TableMigration) -> None:
    """Let the legacy side number its rows after those that were written back; it only goes up.

    Args:
        session: within the transaction that makes the legacy side the truth, nobody writing to the table.
        table: the legacy table, with one column as its key.
    """
    source, key = qualified(table.source), table.key[0]
    sequence = _serial(session, source, key)
    if sequence is None:
        return
    newest = session.value(
        f"SELECT max({quoted(key)})::bigint FROM {source} WHERE {quoted(key)} < {FIRST_NEW_ID}"
    )
    if newest is not None and newest > session.value(f"SELECT last_value FROM {sequence}"):
        _restart(session, sequence, newest + 1)


def _restart(session: Session, sequence: str, first: int) -> None:
    # Unlike setval() it is undone with the transaction, should the engine be killed before the commit.
    session.run(f"ALTER SEQUENCE {sequence} RESTART WITH {first}")


def _sequence_of(session: Session, route: Route) -> str:
    sequence = _serial(session, qualified(route.target), "id")
    if sequence is None:
        raise MigrationError(f"{route.target}.id has no sequence, so new rows would get no ids")
    return sequence


def _serial(session: Session, table: str, column: str) -> str | None:
    found = session.value("SELECT pg_get_serial_sequence(%(table)s, %(column)s)", table=table, column=column)
    return None if found is None else str(found)
