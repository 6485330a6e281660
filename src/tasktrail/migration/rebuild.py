"""Making a table again from its definition, in an order in which filling it is fast and fires no trigger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Final

import psycopg

from tasktrail.migration.definition import Definition
from tasktrail.migration.expressions import literal
from tasktrail.migration.names import listed, quoted
from tasktrail.migration.session import Row, Session

TRIGGER_STATES: Final = {"O": "ENABLE", "D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


def create(session: Session, definition: Definition, fill: Callable[[str, str], str]) -> None:
    """Make a table and fill it, with everything but foreign keys, triggers, owner and grants.

    Args:
        session: within a transaction.
        definition: of the table.
        fill: gives the INSERT, from the quoted name of the table and its columns that take values.
    """
    _create_empty(session, definition)
    values = listed([column["name"] for column in definition["columns"] if not column["generated"]])
    session.run(fill(definition["written"], values))
    _finish(session, definition)


def _create_empty(session: Session, definition: Definition) -> None:
    table = definition["written"]
    serials = [sequence for sequence in definition["sequences"] if not sequence["is_identity"]]
    for sequence in serials:
        session.run(f"CREATE SEQUENCE {sequence['written']} AS {sequence['type']} {_numbering(sequence)}")
    columns = ", ".join(_column(column, definition["sequences"]) for column in definition["columns"])
    options = f" WITH ({', '.join(definition['options'])})" if definition["options"] else ""
    session.run(f"CREATE TABLE {table} ({columns}){options}")
    for sequence in serials:
        session.run(f"ALTER SEQUENCE {sequence['written']} OWNED BY {table}.{quoted(sequence['column'])}")
    for column, setting in product(definition["columns"], ("storage", "compression", "statistics")):
        if column[setting] is not None:
            name = quoted(column["name"])
            session.run(f"ALTER TABLE {table} ALTER {name} SET {setting.upper()} {column[setting]}")


def _finish(session: Session, definition: Definition) -> None:
    """Set the sequences, and add what is quicker to build over all rows than with each of them."""
    table = definition["written"]
    for sequence in definition["sequences"]:
        session.run(
            "SELECT setval(%(name)s::regclass, %(last_value)s, %(is_called)s)",
            name=sequence["written"],
            last_value=sequence["last_value"],
            is_called=sequence["is_called"],
        )
    for constraint in definition["constraints"]:
        validity = "" if constraint["is_valid"] else " NOT VALID"
        session.run(
            f"ALTER TABLE {table} ADD CONSTRAINT {quoted(constraint['name'])} "
            f"{constraint['definition']}{validity}"
        )
    for index in definition["indexes"]:
        unique = "UNIQUE " if index["is_unique"] else ""
        session.run(f"CREATE {unique}INDEX {quoted(index['name'])} ON {table} {index['definition']}")
    for comment in _comments(definition):
        session.run(comment)


def add_triggers(session: Session, definition: Definition) -> None:
    """Put the table's own triggers on it, enabled or not as they were."""
    table = definition["written"]
    for trigger in definition["triggers"]:
        name = quoted(trigger["name"])
        session.run(f"{trigger['head']} ON {table} {trigger['tail']}")
        session.run(f"ALTER TABLE {table} {TRIGGER_STATES[trigger['state']]} TRIGGER {name}")
        if trigger["comment"] is not None:
            session.run(f"COMMENT ON TRIGGER {name} ON {table} IS {literal(trigger['comment'])}")


def add_foreign_keys(session: Session, definition: Definition) -> list[str]:
    """Add the foreign keys without looking at the rows, which takes only a moment; see ``validate``.

    Returns:
        What could not be done, in words: a key is left out whose other table is gone.
    """
    table = definition["written"]
    notes = []
    for key in definition["foreign_keys"]:
        name = quoted(key["name"])
        if session.value("SELECT to_regclass(%(name)s)", name=key["references"]) is None:
            notes.append(f"{table} has no foreign key {key['name']}: {key['references']} is not there")
            continue
        session.run(
            f"ALTER TABLE {table} ADD CONSTRAINT {name} {key['head']} REFERENCES {key['references']}"
            f"{key['tail']} NOT VALID"
        )
        if key["comment"] is not None:
            session.run(f"COMMENT ON CONSTRAINT {name} ON {table} IS {literal(key['comment'])}")
    return notes


def unchecked(session: Session, definition: Definition) -> list[str]:
    """Return the foreign keys of a table that are there but not checked, as they once were."""
    wanted = [key["name"] for key in definition["foreign_keys"] if key["is_checked"]]
    rows = session.rows(
        "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(%(table)s) AND contype = 'f' "
        "AND NOT convalidated AND conname = ANY(%(wanted)s) ORDER BY 1",
        table=definition["written"],
        wanted=wanted,
    )
    return [row["conname"] for row in rows]


def validate(session: Session, definition: Definition) -> list[str]:
    """Have the server look whether all rows fit the foreign keys, beside those who read and write.

    Args:
        session: outside any transaction.
        definition: of the table.

    Returns:
        What could not be done, in words.
    """
    table = definition["written"]
    notes = []
    for key in definition["foreign_keys"]:
        if not key["is_checked"]:
            continue
        try:
            session.run(f"ALTER TABLE {table} VALIDATE CONSTRAINT {quoted(key['name'])}")
        except psycopg.errors.UndefinedObject:
            continue  # it could not be added, and that was said
        except psycopg.errors.ForeignKeyViolation as error:
            detail = error.diag.message_detail or str(error)
            notes.append(
                f"the foreign key {key['name']} of {table} holds for new rows only: {detail} "
                f"Add what is missing, then ALTER TABLE {table} VALIDATE CONSTRAINT {quoted(key['name'])}"
            )
    return notes


def give_away(session: Session, definition: Definition) -> list[str]:
    """Give a table and its sequences their owner and grants back, as far as that is possible.

    Args:
        session: within a transaction.
        definition: of the table.

    Returns:
        What could not be done, in words.
    """
    notes: list[str] = []
    things = [("TABLE", definition), *(("SEQUENCE", one) for one in definition["sequences"])]
    for kind, thing in things:
        name = thing["written"]
        if not thing.get("is_identity", False):  # such a sequence has its table's owner
            notes += _tried(session, [f"ALTER {kind} {name} OWNER TO {quoted(thing['owner'])}"])
        notes += _tried(
            session, [f"REVOKE ALL ON {kind} {name} FROM {role}" for role in _grantees(session, name)]
        )
        notes += _tried(session, [_grant(kind, name, grant) for grant in thing["grants"]])
    return notes


def _tried(session: Session, statements: Sequence[str]) -> list[str]:
    """Run statements, and return in words which the server refused for want of a right or a role."""
    notes = []
    for statement in statements:
        try:
            with session.transaction():
                session.run(statement)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject) as error:
            notes.append(f"`{statement}` was refused: {error.diag.message_primary}")
    return notes


def _column(column: Row, sequences: list[Row]) -> str:
    parts = [quoted(column["name"]), column["type"]]
    if column["collation"]:
        parts.append(f"COLLATE {column['collation']}")
    if column["generated"]:
        kept = "STORED" if column["generated"] == "s" else "VIRTUAL"
        parts.append(f"GENERATED ALWAYS AS ({column['expression']}) {kept}")
    elif column["identity"]:
        always = "ALWAYS" if column["identity"] == "a" else "BY DEFAULT"
        sequence = next(one for one in sequences if one["column"] == column["name"] and one["is_identity"])
        parts.append(
            f"GENERATED {always} AS IDENTITY (SEQUENCE NAME {sequence['written']} {_numbering(sequence)})"
        )
    elif column["expression"] is not None:
        parts.append(f"DEFAULT {column['expression']}")
    if column["is_required"]:
        parts.append("NOT NULL")
    return " ".join(parts)


def _numbering(sequence: Row) -> str:
    cycles = "CYCLE" if sequence["cycles"] else "NO CYCLE"
    return (
        f"INCREMENT BY {sequence['increment']} MINVALUE {sequence['min']} MAXVALUE {sequence['max']} "
        f"START WITH {sequence['start']} CACHE {sequence['cache']} {cycles}"
    )


def _comments(definition: Definition) -> Iterator[str]:
    table = definition["written"]
    told = [(f"TABLE {table}", definition["comment"])]
    told += [(f"COLUMN {table}.{quoted(one['name'])}", one["comment"]) for one in definition["columns"]]
    told += [
        (f"CONSTRAINT {quoted(one['name'])} ON {table}", one["comment"]) for one in definition["constraints"]
    ]
    told += [
        (f"INDEX {quoted(definition['schema'])}.{quoted(one['name'])}", one["comment"])
        for one in definition["indexes"]
    ]
    for what, comment in told:
        if comment is not None:
            yield f"COMMENT ON {what} IS {literal(comment)}"


def _grantees(session: Session, name: str) -> list[str]:
    rows = session.rows(
        "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END "
        "AS role FROM pg_class, aclexplode(coalesce(relacl, "
        """acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))) """
        "WHERE pg_class.oid = to_regclass(%(name)s)",
        name=name,
    )
    return [row["role"] for row in rows]


def _grant(kind: str, name: str, grant: Row) -> str:
    role = "PUBLIC" if grant["role"] is None else quoted(grant["role"])
    column = f" ({quoted(grant['column'])})" if grant["column"] else ""
    option = " WITH GRANT OPTION" if grant["is_grantable"] else ""
    return f"GRANT {grant['privilege']}{column} ON {kind} {name} TO {role}{option}"
