"""What a table is made of, as data: enough to make the same table again after it is gone.

A definition is read from the catalog with an empty search path, so that every name in it has its schema,
and kept as JSON. It names the table itself nowhere in its texts: constraints, indexes and triggers are
cut around that name, so they can be put on a table of another schema, and compared with those of one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, Final, TypeAlias

from tasktrail.errors import MigrationError
from tasktrail.migration.expressions import literal
from tasktrail.migration.session import Row, Session

Definition: TypeAlias = dict[str, Any]
"""``schema``, ``name``, ``written`` (both, as PostgreSQL writes them), ``owner``, ``comment``, ``options``,
``grants``, and lists of ``columns``, ``constraints``, ``foreign_keys``, ``indexes``, ``sequences`` and
``triggers``."""

TABLE: Final = """
    SELECT nspname AS schema, relname AS name, c.oid::regclass::text AS written,
        pg_get_userbyid(relowner) AS owner, obj_description(c.oid, 'pg_class') AS comment,
        reloptions AS options
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = %(table)s::regclass
"""
COLUMNS: Final = """
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS is_required,
        pg_get_expr(adbin, adrelid) AS expression, nullif(attidentity::text, '') AS identity,
        nullif(attgenerated::text, '') AS generated, col_description(attrelid, attnum) AS comment,
        (SELECT format('%%I.%%I', nspname, collname) FROM pg_collation l
         JOIN pg_namespace n ON n.oid = collnamespace
         WHERE l.oid = attcollation AND attcollation <> typcollation) AS collation,
        CASE WHEN attstorage <> typstorage THEN (SELECT word FROM (VALUES ('p', 'PLAIN'), ('e', 'EXTERNAL'),
            ('m', 'MAIN'), ('x', 'EXTENDED')) AS words (letter, word) WHERE letter = attstorage::text)
        END AS storage,
        CASE attcompression::text WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression,
        nullif(attstattarget, -1) AS statistics
    FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# The names of NOT NULL constraints, which PostgreSQL 18 has, are not kept; whether a column is, is.
CONSTRAINTS: Final = """
    SELECT conname AS name, contype::text AS kind, convalidated AS is_valid,
        regexp_replace(pg_get_constraintdef(oid), ' NOT VALID$', '') AS definition,
        obj_description(oid, 'pg_constraint') AS comment
    FROM pg_constraint WHERE conrelid = %(table)s::regclass AND contype IN ('p', 'u', 'c', 'x')
    ORDER BY contype = 'c', contype <> 'p', conname
"""
FOREIGN_KEYS: Final = """
    SELECT conname AS name, convalidated AS is_checked, confrelid::regclass::text AS references,
        split_part(definition, ' REFERENCES ', 1) AS head,
        substr(definition, length(split_part(definition, ' REFERENCES ', 1) || ' REFERENCES '
            || confrelid::regclass::text) + 1) AS tail,
        obj_description(oid, 'pg_constraint') AS comment
    FROM pg_constraint,
        regexp_replace(pg_get_constraintdef(oid), ' NOT VALID$', '') AS definition
    WHERE conrelid = %(table)s::regclass AND contype = 'f' ORDER BY conname
"""
INDEXES: Final = """
    SELECT relname AS name, indisunique AS is_unique,
        substr(whole, strpos(whole, ' USING ') + 1) AS definition,
        obj_description(indexrelid, 'pg_class') AS comment
    FROM pg_index JOIN pg_class i ON i.oid = indexrelid, pg_get_indexdef(indexrelid) AS whole
    WHERE indrelid = %(table)s::regclass AND indisvalid AND NOT EXISTS
        (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
    ORDER BY relname
"""
SEQUENCES: Final = """
    SELECT nspname AS schema, relname AS name, c.oid::regclass::text AS written,
        attname AS column, deptype = 'i' AS is_identity, format_type(seqtypid, NULL) AS type,
        seqstart AS start, seqincrement AS increment,
        seqmin AS min, seqmax AS max, seqcache AS cache, seqcycle AS cycles,
        pg_get_userbyid(relowner) AS owner
    FROM pg_depend JOIN pg_class c ON c.oid = objid JOIN pg_sequence ON seqrelid = c.oid
    JOIN pg_namespace n ON n.oid = relnamespace
    JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
        AND refobjid = %(table)s::regclass AND deptype IN ('a', 'i') ORDER BY attnum
"""
TRIGGERS: Final = """
    SELECT tgname AS name, tgenabled::text AS state,
        split_part(definition, ' ON ' || tgrelid::regclass::text || ' ', 1) AS head,
        substr(definition, strpos(definition, ' ON ' || tgrelid::regclass::text || ' ')
            + length(' ON ' || tgrelid::regclass::text || ' ')) AS tail,
        obj_description(oid, 'pg_trigger') AS comment
    FROM pg_trigger, pg_get_triggerdef(oid) AS definition
    WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal AND tgname NOT LIKE 'tasktrail\\_%%'
    ORDER BY tgname
"""
GRANTS: Final = """
    SELECT NULL AS column, CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END AS role,
        privilege_type AS privilege, is_grantable
    FROM pg_class, aclexplode(coalesce(relacl,
        acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)))
    WHERE oid = %(table)s::regclass
    UNION ALL
    SELECT attname, CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END, privilege_type,
        is_grantable
    FROM pg_attribute, aclexplode(attacl)
    WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 3, 4
"""
STRANGE: Final = """
    SELECT what FROM pg_class c, LATERAL (VALUES
        (relkind <> 'r', 'it is no plain table'),
        (relispartition OR relhassubclass OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid),
            'it inherits from another table or passes on to one'),
        (relpersistence <> 'p', 'it is unlogged or temporary'),
        (reloftype <> 0, 'it is of a composite type'),
        (relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid), 'it has row security'),
        (EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid), 'it has rules'),
        (EXISTS (SELECT FROM pg_statistic_ext WHERE stxrelid = c.oid), 'it has extended statistics'),
        (EXISTS (SELECT FROM pg_publication_rel WHERE prrelid = c.oid), 'a publication names it'),
        (relreplident <> 'd', 'its replica identity is another than the primary key')
    ) AS reasons (applies, what) WHERE c.oid = %(table)s::regclass AND applies
"""


@contextmanager
def empty_search_path(session: Session) -> Iterator[None]:
    """Have the server write every name with its schema.

    Args:
        session: within a transaction; whose end, too, gives it its search path back.
    """
    before = session.value("SELECT current_setting('search_path')")
    session.run("SELECT set_config('search_path', '', true)")
    yield  # an error inside ends the transaction or the savepoint, and with it the setting
    session.run("SELECT set_config('search_path', %(before)s, true)", before=before)


def located(session: Session, name: str) -> str | None:
    """Return a table's name with its schema, quoted; None when there is no such table.

    Args:
        session: a connection.
        name: quoted, with or without a schema.
    """
    found = session.value(
        "SELECT format('%%I.%%I', nspname, relname) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = to_regclass(%(name)s)",
        name=name,
    )
    return None if found is None else str(found)


def read(session: Session, name: str) -> Definition:
    """Read the definition of a table.

    Args:
        session: within a transaction.
        name: of the table with its schema, quoted.

    Raises:
        MigrationError: it has something that a definition does not hold, so it could not be made again.
    """
    with empty_search_path(session):
        reasons = [row["what"] for row in session.rows(STRANGE, table=name)]
        if reasons:
            raise MigrationError(
                f"{name} could not be made again as it is, so it is not archived: {'; '.join(reasons)}. "
                "Take that off the table, and run the same command again"
            )
        definition = session.rows(TABLE, table=name)[0]
        definition["grants"] = session.rows(GRANTS, table=name)
        for part, query in {
            "columns": COLUMNS,
            "constraints": CONSTRAINTS,
            "foreign_keys": FOREIGN_KEYS,
            "indexes": INDEXES,
            "sequences": SEQUENCES,
            "triggers": TRIGGERS,
        }.items():
            definition[part] = session.rows(query, table=name)
        for sequence in definition["sequences"]:
            _read_sequence(session, sequence)
    return definition


def moved(session: Session, definitions: Sequence[Definition], schema: str) -> list[Definition]:
    """Return the definitions of the same tables in another schema, with sequences of their own there.

    Args:
        session: a connection.
        definitions: of tables that move together; foreign keys among them move, too.
        schema: where they are to be.
    """
    copies: list[Definition] = json.loads(json.dumps(definitions))
    written: dict[str, str] = {}
    for copy in copies:
        for one in (copy, *copy["sequences"]):
            before, one["schema"] = one["written"], schema
            one["written"] = session.value(
                "SELECT format('%%I.%%I', %(schema)s::text, %(name)s::text)", schema=schema, name=one["name"]
            )
            written[before] = one["written"]
    for copy in copies:
        for key in copy["foreign_keys"]:
            key["references"] = written.get(key["references"], key["references"])
        for column, sequence in product(copy["columns"], copy["sequences"]):
            before = next(old for old, new in written.items() if new == sequence["written"])
            if column["expression"] is not None:
                column["expression"] = column["expression"].replace(
                    f"{literal(before)}::regclass", f"{literal(sequence['written'])}::regclass"
                )
    return copies


def differences(recorded: Definition, found: Definition, *, ignoring: Collection[str] = ()) -> list[str]:
    """Compare two definitions.

    Args:
        recorded: as it should be.
        found: as it is.
        ignoring: parts and attributes that do not count, e.g. ``owner``.

    Returns:
        One sentence for each difference.
    """
    return list(_compared("", recorded, found, ignoring))


def _read_sequence(session: Session, sequence: Row) -> None:
    name = sequence["written"]
    position = session.rows(f"SELECT last_value, is_called FROM {name}")[0]
    sequence.update(position, grants=session.rows(GRANTS, table=name))


def _compared(path: str, recorded: Any, found: Any, ignored: Collection[str]) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name in sorted((recorded.keys() | found.keys()) - set(ignored)):
            inner = f"{path}.{name}" if path else name
            yield from _compared(inner, recorded.get(name), found.get(name), ignored)
    elif isinstance(recorded, list) and isinstance(found, list) and _are_named([*recorded, *found]):
        if [one["name"] for one in recorded] != [one["name"] for one in found]:
            names = [", ".join(one["name"] for one in side) or "none" for side in (recorded, found)]
            yield f"{path}: {names[0]} recorded, {names[1]} found"
            return
        for one, other in zip(recorded, found, strict=True):
            yield from _compared(f"{path}.{one['name']}", one, other, ignored)
    elif isinstance(recorded, list) and isinstance(found, list):
        yield from (f"{path}: {one!r} recorded, not found" for one in recorded if one not in found)
        yield from (f"{path}: {one!r} found, not recorded" for one in found if one not in recorded)
    elif recorded != found:
        yield f"{path}: {recorded!r} recorded, {found!r} found"


def _are_named(rows: list[Any]) -> bool:
    return all(isinstance(row, dict) and "name" in row for row in rows)
