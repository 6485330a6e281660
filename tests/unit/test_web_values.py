"""Values of columns as a query string or JSON gives them: read, or refused by name."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ARRAY, Boolean, Column, Date, DateTime, Float, Integer, Numeric, String, Uuid
from sqlalchemy.types import TypeEngine

from tasktrail import InvalidField
from tasktrail.web import values

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SOME_ID = UUID("0195a1de-8c5e-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Boolean(), "true", True),
        (Boolean(), "false", False),
        (Integer(), "-12", -12),
        (Float(), "1.5", 1.5),
        (Numeric(10, 2), "1.50", Decimal("1.50")),
        (Date(), "2026-01-31", date(2026, 1, 31)),
        (DateTime(timezone=True), "2026-01-31T12:00:00Z", NOON),
        (DateTime(timezone=True), "2026-01-31t13:00+01:00", NOON),
        (String(), "12", "12"),
        (Uuid(), str(SOME_ID), SOME_ID),
        (Uuid(as_uuid=False), str(SOME_ID), str(SOME_ID)),
    ],
)
def test_a_text_is_read_as_its_column_wants_it(kind: TypeEngine[Any], text: str, expected: object) -> None:
    found = values.from_text("field", Column("field", kind), text)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Boolean(), "True", "field: must be true or false (got 'True')"),
        (Integer(), "1.0", "field: must be a whole number (got '1.0')"),
        (Integer(), "٣", "field: must be a whole number (got '٣')"),
        (Float(), "heavy", "field: must be a number (got 'heavy')"),
        (Numeric(10, 2), "1,5", "field: must be a number (got '1,5')"),
        (Uuid(), "abc", "field: must be a UUID (got 'abc')"),
        (Date(), "31.01.2026", "field: must be a day, e.g. 2026-01-31 (got '31.01.2026')"),
        (DateTime(), "2026-01-31", "field: write a time with its offset, e.g. 2026-01-31T12:00:00Z"),
        (DateTime(), "2026-02-30T12:00:00Z", "field: write a time with its offset"),
        (DateTime(), "1969-12-31T23:59:59Z", "field: lies outside of the years 1970 to 2199"),
        (DateTime(), "2200-01-01T00:00:00Z", "field: lies outside of the years 1970 to 2199"),
    ],
)
def test_a_text_that_is_no_such_value_is_refused_by_name(
    kind: TypeEngine[Any], text: str, message: str
) -> None:
    with pytest.raises(InvalidField, match=f"^{re.escape(message)}"):
        values.from_text("field", Column("field", kind), text)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (Numeric(10, 2), 1.1, Decimal("1.1")),
        (Float(), 1.1, 1.1),
        (Integer(), 5, 5),
        (ARRAY(Date()), ["2026-01-31", None], [date(2026, 1, 31), None]),
    ],
)
def test_what_json_has_a_type_for_stays_as_it_is(
    kind: TypeEngine[Any], given: object, expected: object
) -> None:
    assert values.from_json("field", Column("field", kind), given) == expected


def test_a_bad_element_of_a_list_is_named_with_its_place() -> None:
    with pytest.raises(InvalidField, match=r"^field\[1\]: must be a day"):
        values.from_json("field", Column("field", ARRAY(Date())), ["2026-01-31", "soon"])
