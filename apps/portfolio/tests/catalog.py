"""What PostgreSQL knows about the tables of a database, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Engine

COLUMNS = """
SELECT concat_ws('.', relnamespace::regnamespace, relname) AS owner, 'column ' || attname AS name,
       concat_ws(' ', format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
                 CASE WHEN attidentity <> '' THEN 'IDENTITY' END,
                 CASE WHEN attgenerated = '' THEN 'DEFAULT ' ELSE 'GENERATED ' END
                     || pg_get_expr(adbin, adrelid)) AS text
FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r'
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped
ORDER BY owner, attnum
"""
CONSTRAINTS = """
SELECT concat_ws('.', relnamespace::regnamespace, relname) AS owner, 'constraint ' || conname AS name,
       pg_get_constraintdef(pg_constraint.oid) AS text
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
"""
INDEXES = """
SELECT concat_ws('.', schemaname, tablename) AS owner, 'index ' || indexname AS name, indexdef AS text
FROM pg_indexes
"""
SEQUENCES = """
SELECT concat_ws('.', owning.relnamespace::regnamespace, owning.relname) AS owner,
       'sequence ' || sequence.relname AS name,
       concat_ws(' ', seqtypid::regtype, seqstart, seqincrement) AS text
FROM pg_sequence
JOIN pg_class AS sequence ON seqrelid = sequence.oid
JOIN pg_depend ON objid = sequence.oid AND deptype IN ('a', 'i') AND refclassid = 'pg_class'::regclass
JOIN pg_class AS owning ON owning.oid = refobjid
"""
SCHEMAS = ("public.", "tracking.")


def catalog(engine: Engine, tables: Collection[str] | None = None) -> dict[str, str]:
    """Return columns in their order, constraints, indexes and sequences, but for Alembic's own table.

    Args:
        engine: the database.
        tables: names with their schema; by default all tables of ours.

    Returns:
        E.g. ``{"public.etfs: column id": "character varying NOT NULL"}``.
    """
    found: dict[str, str] = {}
    with engine.connect() as db:
        for query in (COLUMNS, CONSTRAINTS, INDEXES, SEQUENCES):
            for row in db.exec_driver_sql(query):
                is_ours = row.owner.startswith(SCHEMAS) and row.owner != "public.alembic_version"
                if row.owner in tables if tables is not None else is_ours:
                    found[f"{row.owner}: {row.name}"] = row.text
    return found


def part(found: dict[str, str], table: str, kind: str) -> dict[str, str]:
    """Return the columns, constraints, indexes or sequences of one table by their names."""
    prefix = f"{table}: {kind} "
    return {name.removeprefix(prefix): text for name, text in found.items() if name.startswith(prefix)}
