"""How tables, columns and keys are written in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasktrail.migration.expressions import literal


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def qualified(name: str) -> str:
    """Return ``schema.table`` or ``table`` with each part quoted."""
    return ".".join(quoted(part) for part in name.split("."))


def in_schema(schema: str | None, name: str) -> str:
    """Return a table of the library's own, quoted."""
    return f"{quoted(schema)}.{quoted(name)}" if schema else quoted(name)


def key_text(alias: str, columns: Sequence[str]) -> str:
    """Return SQL for a key as text: the value of one column, or a JSON array of those of several.

    Args:
        alias: of the row.
        columns: the key.
    """
    names = [f"{alias}.{quoted(column)}" for column in columns]
    return f"{names[0]}::text" if len(names) == 1 else f"jsonb_build_array({', '.join(names)})::text"


def key_values(text: str, columns: Sequence[str], types: Mapping[str, str]) -> list[str]:
    """Return SQL for each value of a key that was written by ``key_text``.

    Args:
        text: SQL of the type ``text``.
        columns: the key.
        types: of the columns, as PostgreSQL writes them.
    """
    if len(columns) == 1:
        return [f"({text})::{types[columns[0]]}"]
    return [f"(({text})::jsonb ->> {number})::{types[column]}" for number, column in enumerate(columns)]


def matching(left: str, right: str, columns: Sequence[str]) -> str:
    """Return SQL that is true when two rows agree in some columns, none of which is NULL."""
    return " AND ".join(f"{left}.{quoted(column)} = {right}.{quoted(column)}" for column in columns)


def listed(columns: Sequence[str], alias: str | None = None) -> str:
    """Return names of columns, quoted and separated by commas."""
    prefix = f"{alias}." if alias else ""
    return ", ".join(f"{prefix}{quoted(column)}" for column in columns)


def in_words(words: Sequence[str]) -> str:
    """Return SQL for a list of texts, e.g. after IN."""
    return "(" + ", ".join(map(literal, words)) + ")"
