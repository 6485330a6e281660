"""What is really there: a plan is compared with the database before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import psycopg

from tasktrail.errors import PlanRefused
from tasktrail.migration import rights
from tasktrail.migration.names import qualified
from tasktrail.migration.plan import KEPT_BY_THE_ENGINE, MigrationPlan, Route, TableMigration
from tasktrail.migration.session import Row, Session
from tasktrail.migration.transform import Shape, Transform

OLDEST_SERVER: Final = 150_000
"""PostgreSQL 15."""

COLUMNS: Final = """
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS is_required,
        pg_get_expr(adbin, adrelid) AS default
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
INDEXES: Final = """
    SELECT indexrelid::regclass::text AS name, indisunique AS is_unique, indisvalid AS is_valid,
        indisprimary AS is_primary, indpred IS NOT NULL AS is_partial,
        ARRAY(SELECT attname::text FROM unnest(indkey) WITH ORDINALITY AS k (attnum, place)
              JOIN pg_attribute a ON a.attrelid = indrelid AND a.attnum = k.attnum ORDER BY place) AS
              columns
    FROM pg_index WHERE indrelid = to_regclass(%(table)s)
"""
FOREIGN_KEYS: Final = """
    SELECT conrelid::regclass::text AS holder, conname AS name, pg_get_constraintdef(oid) AS definition
    FROM pg_constraint WHERE contype = 'f' AND confrelid = to_regclass(%(table)s)
        AND conrelid <> ALL(ARRAY(
            SELECT coalesce(to_regclass(name), 0) FROM unnest(%(together)s::text[]) AS name))
"""
RESTRICTING_KEYS: Final = """
    SELECT conname AS name, confrelid::regclass::text AS wanted FROM pg_constraint
    WHERE contype = 'f' AND conrelid = to_regclass(%(table)s) AND confdeltype IN ('a', 'r')
"""
IS_PARTITIONED: Final = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%(table)s)"
VIEWS: Final = """
    SELECT DISTINCT view.oid::regclass::text AS name
    FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid JOIN pg_class view ON view.oid = ev_class
    WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
        AND refobjid = to_regclass(%(table)s) AND view.oid <> refobjid
        AND view.relname NOT LIKE 'tasktrail\\_%%'
"""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A plan beside the database.

    Attributes:
        transforms: the SQL of each table of the plan, in its order.
        notes: what was found, for people.
    """

    transforms: tuple[Transform, ...]
    notes: tuple[str, ...]


def inspect(session: Session, plan: MigrationPlan, schema: str | None) -> Inspected:
    """Compare a plan with the database.

    Args:
        session: a connection; nothing is written.
        plan: the plan.
        schema: of the library's own tables; None for the search path.

    Raises:
        PlanRefused: it does not fit; the message says everything that is wrong.
    """
    problems = [*_server_problems(session), *rights.problems(session, plan, schema)]
    notes: list[str] = []
    transforms: list[Transform] = []
    for table in plan.tables:
        source = {row["name"]: row for row in session.rows(COLUMNS, table=qualified(table.source))}
        targets = {
            route.name: {row["name"]: row for row in session.rows(COLUMNS, table=qualified(route.target))}
            for route in table.routes
        }
        found = [*_source_problems(session, table, source), *_target_problems(session, table, targets)]
        problems.extend(found)
        shape = Shape(_types(source), {name: _types(columns) for name, columns in targets.items()})
        transform = Transform(table, shape)
        if not found:
            problems.extend(_transform_problems(session, transform))
            notes.extend(_notes(session, table, source))
        transforms.append(transform)
    if problems:
        raise PlanRefused(plan.name, problems)
    return Inspected(tuple(transforms), tuple(notes))


def dependents(session: Session, table: str, together: Collection[str] = ()) -> list[str]:
    """Return what stands in the way of dropping a table: foreign keys to it and views on it, in words.

    Args:
        session: a connection.
        table: as ``schema.table``.
        together: tables that are dropped with it, whose foreign keys are in nobody's way.
    """
    keys = [
        f"the foreign key {row['name']} of {row['holder']}"
        for row in session.rows(
            FOREIGN_KEYS, table=qualified(table), together=[qualified(one) for one in (table, *together)]
        )
    ]
    views = [f"the view {row['name']}" for row in session.rows(VIEWS, table=qualified(table))]
    return sorted(keys + views)


def _types(columns: Mapping[str, Row]) -> dict[str, str]:
    return {name: row["type"] for name, row in columns.items()}


def _server_problems(session: Session) -> Iterator[str]:
    version = session.connection.info.server_version
    if version < OLDEST_SERVER:
        yield f"the server is PostgreSQL {version // 10_000}, the migration needs {OLDEST_SERVER // 10_000}"
    if session.value("SELECT pg_is_in_recovery()"):
        yield "the server is a replica; name the primary in TASKTRAIL_DATABASE_URL"
    if session.value("SHOW server_encoding") != "UTF8":
        yield "the database is not encoded in UTF8"


def _source_problems(session: Session, table: TableMigration, source: Mapping[str, Row]) -> Iterator[str]:
    if not source:
        yield f"the legacy table {table.source} is missing"
        return
    for name, types in table.source_columns.items():
        if name not in source:
            yield f"{table.source} lacks the column {name}"
        elif source[name]["type"] not in types:
            wanted = " or ".join(types)
            yield f"{table.source}.{name} is {source[name]['type']}, the plan was written for {wanted}"
    for name in table.key:
        if name in source and not source[name]["is_required"]:
            yield (
                f"{table.source}.{name} is part of the key and may be NULL; a row without a key cannot be "
                "told from another; give such rows one, then make the column NOT NULL"
            )
    indexes = session.rows(INDEXES, table=qualified(table.source))
    if not any(_is_unique_on(index, table.key) for index in indexes):
        yield (
            f"{table.source} has no unique index on {', '.join(table.key)}, which the plan takes for its key"
        )


def _target_problems(
    session: Session, table: TableMigration, targets: Mapping[str, Mapping[str, Row]]
) -> Iterator[str]:
    for route in table.routes:
        columns = targets[route.name]
        if not columns:
            yield f"the table {route.target} is missing; apply the pending migrations"
            continue
        if session.value(IS_PARTITIONED, table=qualified(route.target)):
            yield (
                f"{route.target} is partitioned, which a migration cannot write to: "
                "migrate to a table in one piece, without partition_days"
            )
            continue
        missing = [name for name in (*route.columns, "id", *KEPT_BY_THE_ENGINE) if name not in columns]
        if missing:
            yield f"{route.target} lacks the columns {', '.join(missing)}"
            continue
        for name, row in columns.items():
            is_written = name in route.columns or name in KEPT_BY_THE_ENGINE or name == "id"
            if row["is_required"] and row["default"] is None and not is_written:
                yield (
                    f"{route.target}.{name} is NOT NULL, has no default, and {table.name}.{route.name} "
                    f"has no rule"
                )
        indexes = session.rows(INDEXES, table=qualified(route.target))
        if not any(
            _is_unique_on(index, route.key) or _was_interrupted(index, route.key) for index in indexes
        ):
            yield f"{route.target} has no unique index on {', '.join(route.key)}"


def _is_unique_on(index: Row, key: tuple[str, ...]) -> bool:
    return bool(index["is_valid"]) and _is_to_be_unique_on(index, key)


def _was_interrupted(index: Row, key: tuple[str, ...]) -> bool:
    """Return whether a CREATE INDEX CONCURRENTLY left an index INVALID, which expanding builds again."""
    return not index["is_valid"] and _is_to_be_unique_on(index, key)


def _is_to_be_unique_on(index: Row, key: tuple[str, ...]) -> bool:
    return index["is_unique"] and not index["is_partial"] and set(index["columns"]) == set(key)


def _transform_problems(session: Session, transform: Transform) -> Iterator[str]:
    """Have the server parse the SQL of the plan, and compare the types of what it gives with the target's."""
    table = transform.table
    for route in table.routes:
        rows = transform.rows(route, f"{transform.source} s")
        try:
            with session.snapshot(read_only=True):
                cursor = session.connection.execute(f"SELECT * FROM ({rows}) rows LIMIT 0".encode())
                given = {column.name: column.type_code for column in cursor.description or ()}
        except psycopg.Error as error:
            yield f"{table.name}.{route.name}: {str(error).splitlines()[0]}"
            continue
        yield from _type_problems(session, transform, route, given)
    try:
        session.rows(f"SELECT {table.kind} FROM ({transform.others(f'{transform.source} s')}) o, "
                     f"{transform.source} s LIMIT 0")  # fmt: skip
    except psycopg.Error as error:
        yield f"{table.name}: {str(error).splitlines()[0]}"
    for name, expression in table.context.items():
        try:
            session.rows(f"SELECT {expression} FROM {transform.source} s LIMIT 0")
        except psycopg.Error as error:
            yield f"{table.name}: the context {name}: {str(error).splitlines()[0]}"


def _type_problems(
    session: Session, transform: Transform, route: Route, given: Mapping[str, int]
) -> Iterator[str]:
    for name in route.columns:
        wanted = transform.shape.targets[route.name][name]
        kinds = (
            "SELECT format_type(%(given)s::oid, NULL) = format_type(to_regtype(%(bare)s), NULL) AS is_same, "
        )
        kinds += "format_type(%(given)s::oid, NULL) AS type"
        found = session.row(kinds, given=given[name], bare=wanted)
        if (
            found is not None
            and not found["is_same"]
            and {found["type"], wanted.partition("(")[0]} not in ALIKE
        ):
            yield (
                f"{transform.table.name}.{route.name}: {name} gives {found['type']}, {route.target} "
                f"has {wanted}"
            )


ALIKE: Final = (
    {"text", "character varying"},
    {"text[]", "character varying"},
    {"character varying[]", "text[]"},
    {"integer", "bigint"},
    {"smallint", "bigint"},
    {"smallint", "integer"},
)
"""Types that an assignment turns into one another; a text that is too long raises, and is not cut."""


def _notes(session: Session, table: TableMigration, source: Mapping[str, Row]) -> Iterator[str]:
    for name in table.source_columns:
        row = source[name]
        nullable = "NOT NULL" if row["is_required"] else "nullable"
        meaning = ", read as UTC" if row["type"] == "timestamp without time zone" else ""
        default = f", default {row['default']}" if row["default"] else ""
        yield f"{table.source}.{name}: {row['type']}{meaning}, {nullable}{default}"
    for index in session.rows(INDEXES, table=qualified(table.source)):
        kind = "unique index" if index["is_unique"] else "index"
        yield f"{table.source}: {kind} {index['name']} ({', '.join(index['columns'])})"
    for dependent in dependents(session, table.source):
        yield f"{table.source}: {dependent} points at it, and is in the way of dropping it"
    for route in table.routes:
        for index in session.rows(INDEXES, table=qualified(route.target)):
            if _was_interrupted(index, route.key):
                yield f"{route.target}: the index {index['name']} is INVALID, expanding builds it again"
        for key in session.rows(RESTRICTING_KEYS, table=qualified(route.target)):
            yield (
                f"{route.target}: the foreign key {key['name']} lets nobody delete a row of {key['wanted']} "
                "that a mirrored row names, old writers included"
            )
    estimate = session.value(
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(%(table)s)",
        table=qualified(table.source),
    )
    yield f"{table.source}: about {estimate} rows, says the planner"
