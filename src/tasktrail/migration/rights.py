"""What a role must be allowed to do for a migration; all that is missing is said before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tasktrail.migration.names import in_schema, qualified
from tasktrail.migration.plan import MigrationPlan
from tasktrail.migration.session import Session
from tasktrail.schema import v3, v4

WRITES: Final = "SELECT, INSERT, UPDATE, DELETE"

OWNER: Final = """
    SELECT pg_get_userbyid(relowner) AS name, pg_has_role(relowner, 'USAGE') AS is_us,
        current_user::text AS us
    FROM pg_class WHERE oid = to_regclass(%(table)s)
"""
LACKING: Final = """
    SELECT string_agg(name, ', ' ORDER BY place)
    FROM unnest(%(wanted)s::text[]) WITH ORDINALITY w (name, place)
    WHERE NOT has_table_privilege(to_regclass(%(table)s), name)
"""
CREATABLE: Final = "SELECT has_schema_privilege(coalesce(%(schema)s, current_schema()), 'CREATE')"


def problems(session: Session, plan: MigrationPlan, schema: str | None) -> Iterator[str]:
    """Yield what this role may not do and the migration takes, with the statement that allows it.

    Args:
        session: a connection; nothing is written.
        plan: the plan.
        schema: of the library's own tables; None for the search path.
    """
    routes = [route for table in plan.tables for route in table.routes]
    for table in plan.tables:
        yield from _legacy_problems(session, table.source)
    own = {name: in_schema(schema, name) for name in (*v3.TABLES, *v4.TABLES)}
    shown = {f"{schema}.{name}" if schema else name: table for name, table in own.items()}
    shown |= {route.target: qualified(route.target) for route in routes}
    for name, quoted_name in shown.items():
        if lacking := session.value(LACKING, table=quoted_name, wanted=WRITES.split(", ")):
            yield f"this role may not write to {name}: GRANT {lacking}"
    for route in routes:
        # Cutover puts triggers on it and moves its sequence, which belongs to whoever owns the table.
        if route.keeps_ids or route.reverse is not None:
            yield from _ownership_problems(session, route.target)
    if not session.value(CREATABLE, schema=schema):
        yield f"this role may create nothing in the schema {schema or 'current_schema()'}: GRANT CREATE"
    if not session.value("SELECT has_database_privilege(current_database(), 'TEMP')"):
        yield "this role may make no temporary tables: GRANT TEMP ON the database"
    if not session.value("SELECT has_database_privilege(current_database(), 'CREATE')"):
        yield (
            "this role may make no schema, in which archives are restored for a test: "
            "GRANT CREATE ON the database"
        )


def _legacy_problems(session: Session, source: str) -> Iterator[str]:
    if session.value(LACKING, table=qualified(source), wanted=["SELECT"]):
        yield f"this role may not read {source}: GRANT SELECT"
    yield from _ownership_problems(session, source)


def _ownership_problems(session: Session, table: str) -> Iterator[str]:
    owner = session.row(OWNER, table=qualified(table))
    if owner is not None and not owner["is_us"]:  # that it is missing is said elsewhere
        # TRIGGER alone is not enough: they fire for writes by replication as well, and can be dropped.
        yield (
            f"this role does not own {table}, which putting triggers on it takes: run as {owner['name']}, "
            f"or GRANT {owner['name']} TO {owner['us']}"
        )
