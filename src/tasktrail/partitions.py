"""The partitions of a tracking table: which there are, and those that are made ahead of the rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from sqlalchemy import Connection, Table, text

from tasktrail.guards import Model, table_of
from tasktrail.partitioning import DEFAULT_SUFFIX, TODAY, day_of, first_id, qualified

AHEAD: Final = 7
"""For how many days after today there are to be partitions."""

LOCK_TIMEOUT: Final = 0.5
"""How long a lock on a table is waited for, in seconds; whoever comes after waits as long."""

BOUNDS: Final = re.compile(r"FOR VALUES FROM \('(-?\d+)'\) TO \('(-?\d+)'\)")
EPOCH: Final = date(1970, 1, 1)

ATTACHED: Final = text("""
    SELECT relname AS name, nspname AS schema, pg_get_expr(relpartbound, pg_class.oid) AS bound
    FROM pg_inherits
        JOIN pg_class ON pg_class.oid = inhrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE inhparent = to_regclass(:table) AND NOT inhdetachpending
""")


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition, for a range of ids.

    Attributes:
        first: its smallest id.
        end: the id after its largest.
        name: its name as SQL writes it.
    """

    first: int
    end: int
    name: str


def name_of(table: Table) -> str:
    """Write the name of a table, quoted."""
    return qualified(table.schema, table.name)


def default_of(table: Table) -> str:
    """Write the name of the partition that takes what no other does, quoted."""
    return qualified(table.schema, f"{table.name}{DEFAULT_SUFFIX}")


def today(db: Connection) -> int:
    """Return the day on the server's clock, in days since 1970-01-01, UTC."""
    day: int = db.execute(text(f"SELECT {TODAY}")).scalar_one()
    return day


def partitions_of(db: Connection, model: Model) -> list[Partition]:
    """Return the partitions of a table but the default one, the oldest first.

    Args:
        db: a connection.
        model: the domain's model, which is partitioned.
    """
    found = db.execute(ATTACHED, {"table": name_of(table_of(model))})
    bounds = [(row, BOUNDS.fullmatch(row.bound)) for row in found]
    return sorted(
        Partition(int(bound[1]), int(bound[2]), qualified(row.schema, row.name))
        for row, bound in bounds
        if bound is not None
    )


def uncovered(there: Sequence[Partition], first: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges of ids that no partition takes, of a range of ids.

    Args:
        there: the partitions, the oldest first.
        first: the smallest id.
        end: the id after the largest.
    """
    found = []
    for partition in there:
        if first < min(partition.first, end):
            found.append((first, min(partition.first, end)))
        first = max(first, partition.end)
    return [*found, (first, end)] if first < end else found


def make_ahead(db: Connection, model: Model) -> list[str]:
    """Make the partitions of today and of the next days that are missing; others wait for an instant at most.

    A day whose rows are in the default partition already, since nobody made its own in time, stays there.

    Args:
        db: a connection within a transaction, which the caller commits.
        model: the domain's model, which is partitioned.

    Returns:
        The names of those made.

    Raises:
        sqlalchemy.exc.DBAPIError: a lock could not be had in time, or the role does not own the table.
    """
    table, days = table_of(model), model.__tracking__.partition_days or 1
    set_lock_timeout(db)
    # Of two who make partitions, the second waits here, and finds them made. Reads and writes go on.
    db.execute(text(f"LOCK TABLE ONLY {name_of(table)} IN SHARE UPDATE EXCLUSIVE MODE"))
    now = today(db)
    begin, end = now // days * days, (now + AHEAD) // days * days + days
    made = []
    for first, until in uncovered(partitions_of(db, model), first_id(begin), first_id(end)):
        start = _after_strays(db, table, first, until)
        while start < until:
            stop = min(first_id(day_of(start) // days * days + days), until)
            made.append(attach(db, table, start, stop))
            start = stop
    return made


def attach(db: Connection, table: Table, first: int, end: int) -> str:
    """Make a partition and attach it, which unlike creating it in place locks nobody out of the table.

    Args:
        db: a connection within a transaction.
        table: the partitioned table.
        first: its smallest id, the first of a day.
        end: the id after its largest.

    Returns:
        Its name.
    """
    name = f"{table.name}_p{EPOCH + timedelta(days=day_of(first)):%Y%m%d}"
    partition = qualified(table.schema, name)
    db.execute(text(f"CREATE TABLE {partition} (LIKE {name_of(table)} INCLUDING ALL)"))
    db.execute(
        text(
            f"ALTER TABLE {name_of(table)} ATTACH PARTITION {partition} FOR VALUES FROM ({first}) TO ({end})"
        )
    )
    return name


def _after_strays(db: Connection, table: Table, first: int, end: int) -> int:
    """Return where a partition can begin: after the days of which the default partition has rows."""
    query = f"SELECT max(id) FROM {default_of(table)} WHERE id >= :first AND id < :end"  # noqa: S608
    newest = db.execute(text(query), {"first": first, "end": end}).scalar_one()
    return first if newest is None else first_id(day_of(newest) + 1)


def set_lock_timeout(db: Connection) -> None:
    """Have the rest of a transaction wait for locks no longer than ``LOCK_TIMEOUT``."""
    db.execute(
        text("SELECT set_config('lock_timeout', :milliseconds, true)"),
        {"milliseconds": str(round(LOCK_TIMEOUT * 1000))},
    )
