"""How often one address may try to log in; kept in the database, so that it holds for all processes."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Final

from sqlalchemy import case, delete, func
from sqlalchemy.dialects.postgresql import insert

from tasktrail.access.tables import logins
from tasktrail.guards import CLOCK
from tasktrail.tracker import Database

LIMIT: Final = 10
"""How many tries an address has in a window."""

WINDOW: Final = timedelta(minutes=15)

IPV6_NETWORK: Final = 64
"""Whoever has one address of IPv6 has as many as this prefix leaves."""


def is_allowed(db: Database, schema: str | None, address: str) -> bool:
    """Count a try, and say whether it may be made; one statement, so that tries at once all count.

    Args:
        db: session or connection; the caller commits, whatever becomes of the try.
        schema: where the library's own tables are.
        address: of the client.
    """
    table = logins(schema)
    over = CLOCK - WINDOW
    db.execute(delete(table).where(table.c.began_at < over))
    statement = insert(table).values(address=_place(address), began_at=CLOCK, tries=1)
    is_over = table.c.began_at < over
    statement = statement.on_conflict_do_update(
        index_elements=["address"],
        set_={
            "tries": case((is_over, 1), else_=func.least(table.c.tries + 1, LIMIT + 1)),
            "began_at": case((is_over, CLOCK), else_=table.c.began_at),
        },
    )
    tries: int = db.execute(statement.returning(table.c.tries)).scalar_one()
    return tries <= LIMIT


def forget(db: Database, schema: str | None, address: str) -> None:
    """Forget the tries of an address that has logged in."""
    table = logins(schema)
    db.execute(delete(table).where(table.c.address == _place(address)))


def _place(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if found.version == 4:  # noqa: PLR2004  # the version of the protocol
        return str(found)
    return str(ipaddress.ip_network((found, IPV6_NETWORK), strict=False))
