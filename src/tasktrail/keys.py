"""The natural keys of a partitioned domain, in a table beside it: taken, looked up, given back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Enum,
    ScalarSelect,
    String,
    Table,
    Text,
    TextualSelect,
    and_,
    bindparam,
    select,
    text,
)
from sqlalchemy.dialects import postgresql

from tasktrail.errors import ConfigurationError
from tasktrail.guards import Model, table_of
from tasktrail.models import built_once
from tasktrail.partitioning import keys_table, next_id

LARGEST_BATCH: Final = 512
"""How many rows one statement adds; the number of its parameters is limited."""

RowT = TypeVar("RowT")


@built_once
def keys_of(model: Model) -> Table | None:
    """Return the table of a domain's natural keys; ``None`` where its own table has them, or there are none.

    Args:
        model: the domain's model.
    """
    options = model.__tracking__
    if options.partition_days is None or options.natural_key is None:
        return None
    return keys_table(table_of(model), options.natural_key.columns, options.natural_key.name)


def id_of_key(keys: Table) -> ScalarSelect[int]:
    """Select the id of the row with a natural key."""
    guard = and_(*(column == bindparam(f"_key_{column.name}", type_=column.type) for column in _key(keys)))
    return select(keys.c.id).where(guard).scalar_subquery()


def batches(rows: Sequence[RowT]) -> Iterator[Sequence[RowT]]:
    """Cut rows into batches of a few sizes, so that a few statements are enough for any number of them."""
    at = 0
    while at < len(rows):
        size = min(LARGEST_BATCH, 1 << ((len(rows) - at).bit_length() - 1))
        yield rows[at : at + size]
        at += size


def insert_if_absent(model: Model, rows: Sequence[Mapping[str, Any]]) -> tuple[TextualSelect, dict[str, Any]]:
    """Add PENDING rows whose natural keys are free; returns id and Celery id of those added.

    Args:
        model: the domain's model, which is partitioned and has a natural key.
        rows: the values of each row, all with the same names; as many as ``batches`` gives.

    Returns:
        The statement and its parameters.
    """
    given = [{**_defaults(model, row), **row} for row in rows]
    parameters = {f"{name}_{at}": value for at, row in enumerate(given) for name, value in row.items()}
    return _insert_if_absent(model, tuple(given[0]), len(given)), parameters


@built_once
def _insert_if_absent(model: Model, names: tuple[str, ...], count: int) -> TextualSelect:
    """Take the keys that are free and add their rows in one statement, so that neither is seen alone.

    A key is taken by whom the UNIQUE constraint lets in first; others wait for that transaction, as they
    would on the table itself. Before, keys whose rows are gone are given back: all parts see the same moment,
    and who sees a key then sees its row.
    """
    table, keys = table_of(model), cast("Table", keys_of(model))
    quote = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    columns = ", ".join(quote.quote(name) for name in names)
    key = ", ".join(quote.quote(column.name) for column in _key(keys))
    dead, free = (
        ", ".join(f"{of}.{quote.quote(column.name)}" for column in _key(keys)) for of in ("there", "given")
    )
    values = ", ".join(
        "({})".format(", ".join(_value(table.c[name], at) for name in names)) for at in range(count)
    )
    its, theirs = quote.format_table(table), quote.format_table(keys)
    statement = f"""
        WITH given AS MATERIALIZED (
            SELECT {next_id(table.name, table.schema)} AS id, fields.*
            FROM (VALUES {values}) AS fields ({columns})
        ), freed AS (
            DELETE FROM {theirs} AS there USING given WHERE ROW({dead}) = ROW({free})
                AND (SELECT tracked.id FROM {its} AS tracked WHERE tracked.id = there.id) IS NULL
            RETURNING there.id
        ), taken AS (
            INSERT INTO {theirs} (id, {key})
            SELECT id, {key} FROM given WHERE (SELECT count(*) FROM freed) >= 0
            ON CONFLICT ({key}) DO NOTHING RETURNING id
        )
        INSERT INTO {its} (id, {columns})
        SELECT id, {columns} FROM given JOIN taken USING (id)
        RETURNING id, celery_task_id
    """  # noqa: S608  # names of the mapping
    typed = [bindparam(f"{name}_{at}", type_=table.c[name].type) for at in range(count) for name in names]
    return text(statement).bindparams(*typed).columns(id=BigInteger(), celery_task_id=String())


def _value(column: Column[Any], at: int) -> str:
    """Write one value; the types of the first row are those of all."""
    if at:
        return f":{column.name}_{at}"
    # A cast to a shorter text would cut it, where the column itself would refuse.
    is_text = isinstance(column.type, String) and not isinstance(column.type, Enum)
    kind = Text() if is_text else column.type
    return f"CAST(:{column.name}_{at} AS {kind.compile(dialect=postgresql.dialect())})"  # type: ignore[no-untyped-call]


def _defaults(model: Model, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the mapping gives to columns that a row leaves out."""
    found: dict[str, Any] = {}
    for column in table_of(model).columns:
        default: Any = column.default
        if default is None or column.name in row:
            continue
        if default.is_clause_element or default.is_sequence:
            raise ConfigurationError(f"{column}: give it a server_default, its table is partitioned")
        found[column.name] = default.arg(None) if default.is_callable else default.arg
    return found


def _key(keys: Table) -> list[ColumnElement[Any]]:
    return [column for column in keys.columns if column.name != "id"]
