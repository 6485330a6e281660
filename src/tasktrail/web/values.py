"""Values of domain columns as they come in: text of a query string, or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, Column, Date, DateTime, Float, Integer, Numeric, Uuid
from sqlalchemy.types import TypeEngine

from tasktrail.errors import InvalidField

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""Times outside are typing errors."""

_MOMENT: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_READ: Final[tuple[tuple[type[TypeEngine[Any]], Callable[[str], Any], str], ...]] = (
    (Date, date.fromisoformat, "a day, e.g. 2026-01-31"),
    (Float, float, "a number"),
    (Numeric, Decimal, "a number"),
    (Uuid, UUID, "a UUID"),
)
_WHOLE: Final = re.compile(r"-?\d{1,19}", re.ASCII)


def moment(name: str, value: str) -> datetime:
    """Return a time with its offset, e.g. ``2026-01-31T12:00:00Z``.

    Raises:
        InvalidField: it is none, or lies outside of the years 1970 to 2199.
    """
    found = _parsed(value) if _MOMENT.fullmatch(value) else None
    if found is None:
        raise InvalidField(name, value, "write a time with its offset, e.g. 2026-01-31T12:00:00Z")
    if not EARLIEST <= found < LATEST:
        raise InvalidField(name, value, "lies outside of the years 1970 to 2199")
    return found


def _parsed(value: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value.upper().replace(" ", "T"))
    except ValueError:  # e.g. the 30th of February
        return None


def from_text(name: str, column: Column[Any], value: str) -> Any:
    """Return the value of a column that a query string gives as text.

    Raises:
        InvalidField: the text is no such value.
    """
    kind = column.type
    if isinstance(kind, Boolean):
        if value not in {"true", "false"}:
            raise InvalidField(name, value, "must be true or false")
        return value == "true"
    if isinstance(kind, Integer):
        if not _WHOLE.fullmatch(value):
            raise InvalidField(name, value, "must be a whole number")
        return int(value)
    return from_json(name, column, value)


def from_json(name: str, column: Column[Any], value: Any) -> Any:
    """Return the value of a column that JSON gives; what JSON has no type for is text there.

    Raises:
        InvalidField: the text is no such value.
    """
    return _of_kind(name, column.type, value)


def _of_kind(name: str, kind: TypeEngine[Any], value: Any) -> Any:
    if isinstance(kind, ARRAY) and isinstance(value, list):
        return [_of_kind(f"{name}[{number}]", kind.item_type, item) for number, item in enumerate(value)]
    if not isinstance(value, str):
        is_exact = isinstance(kind, Numeric) and not isinstance(kind, Float)
        return Decimal(str(value)) if is_exact and isinstance(value, float) else value
    if isinstance(kind, Uuid) and not kind.as_uuid:
        return value
    for of_kind, read, wanted in _READ:
        if isinstance(kind, of_kind):
            try:
                return read(value)
            except (ValueError, InvalidOperation):
                raise InvalidField(name, value, f"must be {wanted}") from None
    return moment(name, value) if isinstance(kind, DateTime) else value
