"""Checks the fields of a new tracking row before any SQL is sent, so that bad input changes nothing.

The rules are the columns themselves: name, type, length, NOT NULL. A text column may add a pattern with
``mapped_column(..., info={"pattern": "[A-Z]{3}"})``, a model a rule of its own with
``TrackingOptions(check=...)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Uuid,
)
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.types import JSON, TypeEngine

from tasktrail.errors import InvalidField
from tasktrail.models import STANDARD_COLUMNS, BaseTaskTracking, built_once

SETTABLE: Final = frozenset({"max_attempts", "next_attempt_at", "celery_task_id"})
"""Standard columns that whoever creates a row may set."""

DEEPEST_JSON: Final = 100
"""How deep JSON may be nested; what is read back by other programs rarely may be deeper."""

_INTEGER_BITS: Final[tuple[tuple[type[TypeEngine[Any]], int], ...]] = (
    (SmallInteger, 16),
    (BigInteger, 64),
    (Integer, 32),
)


def checked(
    model: type[BaseTaskTracking], fields: Mapping[str, Any], *, partial: bool = False
) -> dict[str, Any]:
    """Return the fields of a new row, each one found acceptable.

    Args:
        model: the domain's model.
        fields: column names and values; domain columns and those in ``SETTABLE``.
        partial: accept some domain columns only, to be written to a row that exists.

    Returns:
        A new dict with the same values.

    Raises:
        InvalidField: a name is unknown or kept by tasktrail, a required one is missing, or a value has
            the wrong type, length, range or form. The first offending field is named.
    """
    columns = domain_columns(model)
    for name, value in fields.items():
        if name in columns:
            check_value(name, columns[name], value)
        elif name in SETTABLE and not partial:
            check_value(name, model.__table__.columns[name], value)  # type: ignore[attr-defined]
        elif name in STANDARD_COLUMNS:
            raise InvalidField(name, value, "is kept by tasktrail and cannot be set")
        else:
            known = ", ".join(columns)
            raise InvalidField(name, value, f"is no field of {model.__tracking__.domain}; it has: {known}")
    if partial:
        return dict(fields)
    for name, column in columns.items():
        if name not in fields and _is_required(column):
            raise InvalidField(name, None, "is required")
    max_attempts = fields.get("max_attempts")
    if max_attempts is not None and max_attempts < 1:
        raise InvalidField("max_attempts", max_attempts, "must be at least 1")
    if model.__tracking__.check is not None:
        model.__tracking__.check(fields)
    return dict(fields)


@built_once
def domain_columns(model: type[BaseTaskTracking]) -> dict[str, Column[Any]]:
    """Return the columns a domain adds to the standard ones, by name, in table order."""
    table = model.__table__  # type: ignore[attr-defined]  # set by SQLAlchemy on mapped classes
    return {column.key: column for column in table.columns if column.key not in STANDARD_COLUMNS}


def _is_required(column: Column[Any]) -> bool:
    return not (column.nullable or column.default or column.server_default or column.identity)


def check_value(name: str, column: Column[Any], value: object) -> None:
    """Make sure that a value fits its column.

    Args:
        name: how the value is called in the error.
        column: the column.
        value: the value.

    Raises:
        InvalidField: it does not.
    """
    if value is None:
        if not column.nullable:
            raise InvalidField(name, value, "may not be empty")
        return
    _check_type(name, column.type, value, column.info.get("pattern"))


def refused_value(error: IntegrityError | DataError) -> InvalidField:
    """Return what is wrong with a value that only the database could refuse, e.g. a foreign key."""
    diagnosis = getattr(error.orig, "diag", None)
    field = getattr(diagnosis, "column_name", None) or getattr(diagnosis, "constraint_name", None) or "row"
    return InvalidField(field, None, getattr(diagnosis, "message_primary", None) or str(error.orig))


def _check_type(name: str, kind: TypeEngine[Any], value: object, pattern: str | None) -> None:
    for types, check in _CHECKS:
        if isinstance(kind, types):
            check(name, kind, value, pattern)
            return


def _check_text(name: str, kind: Any, value: object, pattern: str | None) -> None:
    if not isinstance(value, str):
        raise InvalidField(name, value, "must be text")
    if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidField(name, value, "holds a NUL or a lone surrogate, which PostgreSQL cannot store")
    if kind.length is not None and len(value) > kind.length:
        raise InvalidField(name, value, f"is {len(value)} characters long, {kind.length} fit")
    if pattern is not None and re.fullmatch(pattern, value) is None:
        raise InvalidField(name, value, f"must have the form {pattern}")


def _check_integer(name: str, kind: Any, value: object, _: str | None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidField(name, value, "must be a whole number")
    bits = next(bits for type_, bits in _INTEGER_BITS if isinstance(kind, type_))
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise InvalidField(name, value, f"does not fit a {bits}-bit integer")


def _check_boolean(name: str, _: Any, value: object, __: str | None) -> None:
    if not isinstance(value, bool):
        raise InvalidField(name, value, "must be true or false")


def _check_datetime(name: str, kind: Any, value: object, _: str | None) -> None:
    if not isinstance(value, datetime):
        raise InvalidField(name, value, "must be a datetime")
    if kind.timezone and value.utcoffset() is None:
        raise InvalidField(name, value, "has no time zone; pass an aware datetime, e.g. in UTC")


def _check_date(name: str, _: Any, value: object, __: str | None) -> None:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InvalidField(name, value, "must be a date")


def _check_uuid(name: str, kind: Any, value: object, _: str | None) -> None:
    if kind.as_uuid and not isinstance(value, UUID):
        raise InvalidField(name, value, "must be a UUID")
    try:
        UUID(str(value))
    except ValueError:
        raise InvalidField(name, value, "is no UUID") from None


def _check_number(name: str, kind: Any, value: object, _: str | None) -> None:
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        raise InvalidField(name, value, "must be a number")
    if not isinstance(value, int) and not math.isfinite(value):
        raise InvalidField(name, value, "must be finite")
    precision, scale = getattr(kind, "precision", None), getattr(kind, "scale", None) or 0
    if isinstance(kind, Numeric) and precision is not None:
        largest = Decimal(10) ** (precision - scale) - Decimal(5) / Decimal(10) ** (scale + 1)
        if abs(Decimal(value)) >= largest:  # what rounds to more digits than the column has
            raise InvalidField(name, value, f"has more than {precision - scale} digits before the point")


def _check_float(name: str, kind: Any, value: object, _: str | None) -> None:
    _check_number(name, kind, value, None)
    if isinstance(value, int):
        try:
            float(value)
        except OverflowError:
            raise InvalidField(name, value, "does not fit a floating-point number") from None


def _check_choice(name: str, kind: Any, value: object, _: str | None) -> None:
    is_member = kind.enum_class is not None and isinstance(value, kind.enum_class)
    if not is_member and value not in kind.enums:
        raise InvalidField(name, value, f"must be one of {', '.join(kind.enums)}")


def _check_array(name: str, kind: Any, value: object, pattern: str | None) -> None:
    if not isinstance(value, list | tuple):
        raise InvalidField(name, value, "must be a list")
    for position, item in enumerate(value):
        if item is None:
            raise InvalidField(f"{name}[{position}]", item, "may not be empty")
        _check_type(f"{name}[{position}]", kind.item_type, item, pattern)


def _check_json(name: str, _: Any, value: object, __: str | None) -> None:
    stack = [(name, value, 0)]
    while stack:
        path, item, depth = stack.pop()
        if depth > DEEPEST_JSON:
            raise InvalidField(name, "…", f"is nested more than {DEEPEST_JSON} deep, or contains itself")
        if isinstance(item, dict):
            for key, inner in item.items():
                _check_text(f"{path} key", String(), key, None)
                stack.append((f"{path}.{key}", inner, depth + 1))
        elif isinstance(item, list | tuple):
            stack.extend((f"{path}[{position}]", inner, depth + 1) for position, inner in enumerate(item))
        elif isinstance(item, str):
            _check_text(path, String(), item, None)
        elif isinstance(item, float) and not math.isfinite(item):
            raise InvalidField(path, item, "is not a number JSON can hold")
        elif item is not None and not isinstance(item, int | float):
            raise InvalidField(path, item, "cannot be stored as JSON")


_CHECKS: Final[tuple[tuple[type[TypeEngine[Any]], Callable[[str, Any, object, str | None], None]], ...]] = (
    (Boolean, _check_boolean),
    (Enum, _check_choice),
    (String, _check_text),
    (Integer, _check_integer),
    (DateTime, _check_datetime),
    (Date, _check_date),
    (Uuid, _check_uuid),
    (Float, _check_float),
    (Numeric, _check_number),
    (ARRAY, _check_array),
    (JSON, _check_json),
)
