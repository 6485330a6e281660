"""What PostgreSQL knows about the tables of a database, in a form that can be compared."""

from __future__ import annotations

from sqlalchemy import Engine

COLUMNS = """
SELECT concat_ws('.', relnamespace::regnamespace, relname, attname) AS name,
       concat_ws(' ', row_number() OVER (PARTITION BY attrelid ORDER BY attnum),
                 format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
                 CASE WHEN attidentity <> '' THEN 'IDENTITY' END,
                 'DEFAULT ' || pg_get_expr(adbin, adrelid)) AS text
FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r'
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped AND relnamespace::regnamespace::text IN ('public', 'tracking')
"""
CONSTRAINTS = """
SELECT concat_ws(': ', conrelid::regclass, conname) AS name, pg_get_constraintdef(oid) AS text
FROM pg_constraint WHERE connamespace::regnamespace::text IN ('public', 'tracking')
"""
INDEXES = """
SELECT concat_ws('.', schemaname, indexname) AS name, indexdef AS text
FROM pg_indexes WHERE schemaname IN ('public', 'tracking')
"""
SEQUENCES = """
SELECT concat_ws('.', relnamespace::regnamespace, relname) AS name,
       concat_ws(' ', 'OWNED BY', refobjid::regclass, seqtypid::regtype, seqstart, seqincrement) AS text
FROM pg_class
JOIN pg_sequence ON seqrelid = pg_class.oid
JOIN pg_depend ON objid = pg_class.oid AND deptype IN ('a', 'i') AND refclassid = 'pg_class'::regclass
WHERE relnamespace::regnamespace::text IN ('public', 'tracking')
"""


def catalog(engine: Engine) -> dict[str, str]:
    """Return columns, constraints, indexes and sequences by name, but for those of Alembic's own table."""
    found: dict[str, str] = {}
    with engine.connect() as db:
        for query in (COLUMNS, CONSTRAINTS, INDEXES, SEQUENCES):
            found.update((row.name, row.text) for row in db.exec_driver_sql(query))
    return {name: text for name, text in found.items() if "alembic_version" not in name}


def of_tables(found: dict[str, str], *tables: str) -> dict[str, str]:
    """Return the part of a catalog that is about some tables."""
    return {name: text for name, text in found.items() if any(table in f"{name} {text}" for table in tables)}
