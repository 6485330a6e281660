"""What a partitioned tracking table is made of: ids that say their day, a default partition, and its keys.

The table is ``PARTITION BY RANGE (id)``, and the upper bits of an id are the day of the row's transaction. So
a partition is a range of ids that is known ahead, and a span of ``created_at``; PRIMARY KEY (id) stays, and a
statement by id touches one partition. A UNIQUE constraint cannot reach over partitions, so the natural keys
stand in a table beside it, which a trigger keeps (ADR 35).

Alembic revisions call this through ``tasktrail.schema``: once released, none of the SQL here is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger, Column, MetaData, Table, UniqueConstraint

from tasktrail.errors import ConfigurationError

DAY_BITS: Final = 36
"""How many bits of an id count the rows; the day since 1970-01-01 stands above. Ids stay below 2 ** 53."""

DAY: Final = 86_400

MOST_DAYS: Final = 366
"""Widest partition."""

LONGEST_NAME: Final = 63 - len("_keep_keys")
"""How long the name of a partitioned table may be, so that the names made of it fit PostgreSQL's limit."""

TODAY: Final = f"floor(extract(epoch FROM now()) / {DAY})::bigint"
"""The day of the transaction since 1970-01-01, UTC, in SQL."""

KEYS_SUFFIX: Final = "_keys"
DEFAULT_SUFFIX: Final = "_default"


def first_id(day: int) -> int:
    """Return the smallest id of a day.

    Args:
        day: days since 1970-01-01, UTC.
    """
    return day << DAY_BITS


def day_of(first: int) -> int:
    """Return the day of an id, in days since 1970-01-01, UTC."""
    return first >> DAY_BITS


def qualified(schema: str | None, name: str) -> str:
    """Write the name of a table, quoted."""
    parts = [name] if schema is None else [schema, name]
    return ".".join('"{}"'.format(part.replace('"', '""')) for part in parts)


def next_id(name: str, schema: str | None) -> str:
    """Write the default of the id of a partitioned table: the day of the transaction, and the next number."""
    sequence = qualified(schema, f"{name}_id_seq").replace("'", "''")
    return f"({TODAY} << {DAY_BITS}) | nextval('{sequence}'::regclass)"


def check(name: str, days: object) -> None:
    """Make sure that a table can be partitioned.

    Args:
        name: the table's name.
        days: rows of how many days a partition holds.

    Raises:
        ConfigurationError: the name is too long, or the number of days is out of range.
    """
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
        raise ConfigurationError(f"{name}: partition_days is {days!r}; it must be from 1 to {MOST_DAYS}")
    if len(name.encode()) > LONGEST_NAME:
        raise ConfigurationError(
            f"{name}: the name of a partitioned table has at most {LONGEST_NAME} bytes, "
            "since those of its partitions are made of it"
        )


def before_table(name: str, schema: str | None) -> list[str]:
    """Return the SQL that comes before a partitioned table: the sequence of its ids.

    It starts again after 68 thousand million rows; ids of two days never meet.
    """
    sequence = qualified(schema, f"{name}_id_seq")
    return [f"CREATE SEQUENCE {sequence} AS bigint MAXVALUE {2**DAY_BITS - 1} CYCLE"]


def after_table(name: str, schema: str | None) -> list[str]:
    """Return the SQL that comes after a partitioned table: the partition for rows that no other takes."""
    table, sequence = qualified(schema, name), qualified(schema, f"{name}_id_seq")
    return [
        f"ALTER SEQUENCE {sequence} OWNED BY {table}.id",
        f"CREATE TABLE {qualified(schema, name + DEFAULT_SUFFIX)} PARTITION OF {table} DEFAULT",
    ]


def keys_table(table: Table, key: Sequence[str], constraint: str) -> Table:
    """Return the table of the natural keys of a partitioned table.

    Args:
        table: the partitioned table.
        key: names of the columns.
        constraint: name of the UNIQUE constraint.
    """
    return Table(
        f"{table.name}{KEYS_SUFFIX}",
        MetaData(),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        *(Column(name, table.c[name].type, nullable=False) for name in key),
        UniqueConstraint(*key, name=constraint),
        schema=table.schema,
    )


def keep_keys(name: str, schema: str | None, key: Sequence[str]) -> list[str]:
    """Return the SQL that keeps the natural keys as the rows are, whoever writes these.

    The trigger finds the key there when a row is enqueued, since the statement that does so takes the key
    first. A key whose row is gone is free: rows that go with their partition leave theirs behind for a while.
    Key and row are written in one transaction, so whoever sees one sees the other.

    Args:
        name: the partitioned table.
        schema: its PostgreSQL schema.
        key: names of the columns.
    """
    table, keys = qualified(schema, name), qualified(schema, name + KEYS_SUFFIX)
    function = qualified(schema, f"{name}_keep_keys")
    columns = ", ".join(qualified(None, column) for column in key)
    there = ", ".join(f"there.{qualified(None, column)}" for column in key)
    new = ", ".join(f"NEW.{qualified(None, column)}" for column in key)
    return [
        f"""
        CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $keep$
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN
                DELETE FROM {keys};
                RETURN NULL;
            ELSIF TG_OP = 'DELETE' THEN
                DELETE FROM {keys} WHERE id = OLD.id;
                RETURN NULL;
            ELSIF TG_OP = 'UPDATE' THEN
                DELETE FROM {keys} WHERE id = OLD.id;
            END IF;
            IF NOT EXISTS (
                SELECT FROM {keys} AS there WHERE ROW(there.id, {there}) = ROW(NEW.id, {new})
            ) THEN
                DELETE FROM {keys} AS there WHERE ROW({there}) = ROW({new})
                    AND (SELECT tracked.id FROM {table} AS tracked WHERE tracked.id = there.id) IS NULL;
                INSERT INTO {keys} (id, {columns}) VALUES (NEW.id, {new});
            END IF;
            RETURN NULL;
        END $keep$""",  # noqa: S608  # names of the mapping
        f"""
        CREATE TRIGGER tasktrail_keys AFTER INSERT OR DELETE OR UPDATE OF id, {columns} ON {table}
        FOR EACH ROW EXECUTE FUNCTION {function}()""",
        f"""
        CREATE TRIGGER tasktrail_keys_truncate AFTER TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION {function}()""",
    ]


def after_drop(name: str, schema: str | None) -> list[str]:
    """Return the SQL that removes what is left of a partitioned table that was dropped."""
    return [
        f"DROP TABLE IF EXISTS {qualified(schema, name + KEYS_SUFFIX)}",
        f"DROP FUNCTION IF EXISTS {qualified(schema, f'{name}_keep_keys')}()",
    ]
