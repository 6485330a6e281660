"""What two errors have in common: their text with numbers, ids, dates and quoted text folded.

Each rule exists once, as a pattern that Python and PostgreSQL read alike: classes of ASCII characters, no
alternation whose order matters, nothing lazy. A test holds both against each other.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from sqlalchemy import ColumnElement, Text, Uuid, cast, func, literal_column

LONGEST_READ: Final = 2000
"""How much of an error's text is looked at, in characters."""

LONGEST: Final = 300
"""Longest fingerprint, in characters."""

CLASS: Final = r"^[A-Za-z_][A-Za-z0-9_.]*:"
"""The class in "Class: message"; numbers in it belong to its name."""

DAY: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
HOURS: Final = "[0-9]{2}:[0-9]{2}"

RULES: Final = (
    (r"(?<![A-Za-z0-9_])'[^']*'", "'…'"),
    (r'"[^"]*"', '"…"'),
    (r"`[^`]*`", "`…`"),
    (r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", "<id>"),
    (f"{DAY}([T ]{HOURS}(:[0-9]{{2}}([.,][0-9]+)?)?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})?)?", "<time>"),
    (r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?", "<time>"),
    (r"(?<![A-Za-z0-9_])0x[0-9a-fA-F]+", "<id>"),
    (r"(?<![A-Za-z0-9_])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}(?![A-Za-z0-9_])", "<id>"),
    (r"[0-9]+([.,][0-9]+)*", "<n>"),
    (r"(?<![A-Za-z0-9_)])[-+]<n>", "<n>"),
    (r"[ \t\n\r\f\v]+", " "),
)
"""Patterns and what takes the place of what they match, in this order."""

_CLASS: Final = re.compile(CLASS)
_RULES: Final = tuple((re.compile(pattern), replacement) for pattern, replacement in RULES)


def fingerprint(error_message: str | None) -> str:
    """Return what stays of an error's text when all that differs from one time to the next is folded.

    Args:
        error_message: "Class: message", as a row has it; ``None`` for a row that says nothing.
    """
    text = (error_message or "")[:LONGEST_READ]
    found = _CLASS.match(text)
    name, message = (found[0], text[found.end() :]) if found else ("", text)
    for pattern, replacement in _RULES:
        message = pattern.sub(replacement, message)
    return (name + message)[:LONGEST]


def group_of(error_message: str | None) -> str:
    """Return the id of the group of errors with the same fingerprint, 32 hexadecimal digits."""
    return group_of_fingerprint(fingerprint(error_message))


def group_of_fingerprint(text: str) -> str:
    """Return the id of the group with a fingerprint."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def fingerprint_sql(column: ColumnElement[str]) -> ColumnElement[str]:
    """Build the same in SQL, of immutable functions and literals only, so that an index may hold it."""
    text = func.left(func.coalesce(column, literal_column("''", Text())), _number(LONGEST_READ), type_=Text())
    name = func.coalesce(func.substring(text, _text(CLASS)), literal_column("''", Text()), type_=Text())
    message: ColumnElement[str] = func.regexp_replace(text, _text(CLASS), literal_column("''", Text()))
    for pattern, replacement in RULES:
        message = func.regexp_replace(message, _text(pattern), _text(replacement), _text("g"), type_=Text())
    return func.left(name.concat(message), _number(LONGEST), type_=Text())


def group_sql(column: ColumnElement[str]) -> ColumnElement[object]:
    """Build the id of a group in SQL, as a uuid."""
    return cast(func.md5(fingerprint_sql(column)), Uuid())


def _text(value: str) -> ColumnElement[str]:
    quoted = value.replace("'", "''")
    if "\\" in value:  # an escape string means the same whatever the server's settings
        return literal_column("E'" + quoted.replace("\\", "\\\\") + "'", Text())
    return literal_column(f"'{quoted}'", Text())


def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value))
