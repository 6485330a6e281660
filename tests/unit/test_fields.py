"""The check of a new row's fields: what a column cannot hold is refused by name, before any SQL."""

from __future__ import annotations

import enum
import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Enum, Float, SmallInteger, String, Text, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasktrail import BaseTaskTracking, InvalidField, TrackingOptions
from tasktrail.fields import SETTABLE, check_value, checked, domain_columns
from tasktrail.models import STANDARD_COLUMNS
from tests.support import JobTracking, OrderTracking

NOON = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)


def _in_itself() -> list[Any]:
    value: list[Any] = []
    value.extend([value, value])
    return value


ORDER = {"day": date(2024, 3, 1), "currency": "EUR"}


class Base(DeclarativeBase):
    """Models of this file only; none of them gets a table."""


class Size(enum.Enum):
    """A choice."""

    SMALL = "s"
    LARGE = "l"


def no_odd_numbers(fields: Any) -> None:
    if fields["small"] % 2:
        raise InvalidField("small", fields["small"], "must be even")


class ParcelTracking(BaseTaskTracking, Base):
    """A domain with a rule of its own and the kinds of columns the orders lack."""

    __tablename__ = "parcel_tracking"
    __tracking__ = TrackingOptions(domain="parcel", check=no_odd_numbers)

    small: Mapped[int] = mapped_column(SmallInteger)
    big: Mapped[int | None] = mapped_column(BigInteger)
    weight: Mapped[float | None] = mapped_column(Float)
    size: Mapped[Size | None] = mapped_column(Enum(Size, native_enum=False, length=10))
    label: Mapped[str | None] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(String(10), default="us")


def test_the_fields_of_a_good_row_come_back_in_a_new_dict() -> None:
    fields = {**ORDER, "tags": ["a", "b"], "amount": Decimal("1.50"), "max_attempts": 5}

    result = checked(OrderTracking, fields)

    assert fields == result
    assert fields is not result


def test_the_domain_columns_are_those_that_are_not_standard_in_table_order() -> None:
    names = ["day", "currency", "tags", "done", "total", "amount", "seen_at", "details", "urgent"]

    assert names == list(domain_columns(OrderTracking))
    assert set(STANDARD_COLUMNS) == set(OrderTracking.__table__.columns.keys()) - set(names)


@pytest.mark.parametrize("name", sorted(set(STANDARD_COLUMNS) - SETTABLE))
def test_a_standard_column_cannot_be_set(name: str) -> None:
    with pytest.raises(InvalidField, match=rf"^{name}: is kept by tasktrail and cannot be set") as caught:
        checked(OrderTracking, {**ORDER, name: None})

    assert name == caught.value.field


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_attempts", 1), ("next_attempt_at", NOON), ("next_attempt_at", None), ("celery_task_id", "x")],
)
def test_these_standard_columns_can_be_set(name: str, value: object) -> None:
    assert {"payload": "x", name: value} == checked(JobTracking, {"payload": "x", name: value})


def test_an_unknown_field_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidField) as caught:
        checked(OrderTracking, {**ORDER, "colour": "red"})

    assert caught.value.field == "colour"
    assert caught.value.value == "red"
    assert "is no field of order; it has: day, currency, tags" in str(caught.value)


@pytest.mark.parametrize("missing", ORDER)
def test_a_required_field_that_is_missing_is_named(missing: str) -> None:
    fields = {name: value for name, value in ORDER.items() if name != missing}

    with pytest.raises(InvalidField, match=rf"^{missing}: is required"):
        checked(OrderTracking, fields)


@pytest.mark.parametrize("name", [*ORDER, "done", "max_attempts"])
def test_a_field_that_may_not_be_null_is_refused_as_none(name: str) -> None:
    with pytest.raises(InvalidField, match=rf"^{name}: may not be empty"):
        checked(OrderTracking, {**ORDER, name: None})


def test_a_column_with_a_default_in_python_or_the_database_is_not_required() -> None:
    assert checked(JobTracking, {}) == {}
    assert checked(ParcelTracking, {"small": 2}) == {"small": 2}


def short(value: object) -> str:
    return value.__name__ if isinstance(value, type) else ascii(value)[:40]


GOOD: list[tuple[type[BaseTaskTracking], str, object]] = [
    (OrderTracking, "day", date(1, 1, 1)),
    (OrderTracking, "day", date.max),
    (OrderTracking, "currency", "USD"),
    (OrderTracking, "tags", None),
    (OrderTracking, "tags", []),
    (OrderTracking, "tags", ("a", "12345")),
    (OrderTracking, "tags", [""]),
    (OrderTracking, "done", 0),
    (OrderTracking, "done", -(2**31)),
    (OrderTracking, "done", 2**31 - 1),
    (OrderTracking, "amount", 3),
    (OrderTracking, "amount", 2.5),
    (OrderTracking, "amount", Decimal("-99999999.99")),
    (OrderTracking, "seen_at", NOON),
    (OrderTracking, "seen_at", NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    (OrderTracking, "details", {}),
    (OrderTracking, "details", {"a": [1, 2.5, None, True, "ü", {"b": "😀"}]}),
    (OrderTracking, "details", None),
    (OrderTracking, "urgent", True),
    (OrderTracking, "urgent", None),
    (OrderTracking, "celery_task_id", "x" * 255),
    (OrderTracking, "max_attempts", 1),
    (ParcelTracking, "small", -(2**15)),
    (ParcelTracking, "small", 2**15 - 2),
    (ParcelTracking, "big", 2**63 - 1),
    (ParcelTracking, "weight", 1.5),
    (ParcelTracking, "size", Size.SMALL),
    (ParcelTracking, "label", "x" * 100_000),
]


@pytest.mark.parametrize(("model", "name", "value"), GOOD, ids=short)
def test_a_value_that_fits_its_column_is_accepted(
    model: type[BaseTaskTracking], name: str, value: object
) -> None:
    required: dict[str, object] = ORDER if model is OrderTracking else {"small": 2}

    assert {**required, name: value} == checked(model, {**required, name: value})


BAD: list[tuple[type[BaseTaskTracking], str, object, str]] = [
    (OrderTracking, "day", "2024-03-01", "day: must be a date"),
    (OrderTracking, "day", NOON, "day: must be a date"),
    (OrderTracking, "currency", "EURO", "currency: is 4 characters long, 3 fit (got 'EURO')"),
    (OrderTracking, "currency", "EU", "currency: must have the form [A-Z]{3} (got 'EU')"),
    (OrderTracking, "currency", "eur", "currency: must have the form"),
    (OrderTracking, "currency", "", "currency: must have the form"),
    (OrderTracking, "currency", "EU\n", "currency: must have the form"),
    (OrderTracking, "currency", b"EUR", "currency: must be text"),
    (OrderTracking, "currency", 978, "currency: must be text (got 978)"),
    (OrderTracking, "currency", "E\x00R", "currency: holds a NUL or a lone surrogate"),
    (OrderTracking, "currency", "E\ud800R", "currency: holds a NUL or a lone surrogate"),
    (OrderTracking, "tags", "abc", "tags: must be a list"),
    (OrderTracking, "tags", {"a"}, "tags: must be a list"),
    (OrderTracking, "tags", ["a", None], "tags[1]: may not be empty"),
    (OrderTracking, "tags", ["a", "123456"], "tags[1]: is 6 characters long, 5 fit"),
    (OrderTracking, "tags", ["a", 5], "tags[1]: must be text"),
    (OrderTracking, "tags", ["a", ["b"]], "tags[1]: must be text"),
    (OrderTracking, "done", True, "done: must be a whole number"),
    (OrderTracking, "done", "1", "done: must be a whole number"),
    (OrderTracking, "done", 1.0, "done: must be a whole number"),
    (OrderTracking, "done", 2**31, "done: does not fit a 32-bit integer"),
    (OrderTracking, "done", -(2**31) - 1, "done: does not fit a 32-bit integer"),
    (OrderTracking, "amount", "1.5", "amount: must be a number"),
    (OrderTracking, "amount", True, "amount: must be a number"),
    (OrderTracking, "amount", math.nan, "amount: must be finite"),
    (OrderTracking, "amount", Decimal("NaN"), "amount: must be finite"),
    (OrderTracking, "amount", -math.inf, "amount: must be finite"),
    (OrderTracking, "amount", 10**400, "amount: "),
    (OrderTracking, "amount", Decimal(100_000_000), "amount: "),
    (OrderTracking, "amount", Decimal("99999999.999"), "amount: "),
    (OrderTracking, "seen_at", "2024-03-01", "seen_at: must be a datetime"),
    (OrderTracking, "seen_at", date(2024, 3, 1), "seen_at: must be a datetime"),
    (OrderTracking, "seen_at", NOON.replace(tzinfo=None), "seen_at: has no time zone"),
    (OrderTracking, "next_attempt_at", NOON.replace(tzinfo=None), "next_attempt_at: has no time zone"),
    (OrderTracking, "details", {"a": math.nan}, "details.a: is not a number JSON can hold"),
    (OrderTracking, "details", {"a": [{"b": math.inf}]}, "details.a[0].b: is not a number JSON can hold"),
    (OrderTracking, "details", {"a": NOON}, "details.a: cannot be stored as JSON"),
    (
        OrderTracking,
        "details",
        {"a": _in_itself()},
        "details: is nested more than 100 deep, or contains itself",
    ),
    (OrderTracking, "details", {"a": Decimal(1)}, "details.a: cannot be stored as JSON"),
    (OrderTracking, "details", {"a": "b\x00"}, "details.a: holds a NUL"),
    (OrderTracking, "details", {"a\x00": 1}, "details key: holds a NUL"),
    (OrderTracking, "details", {"a": {5: 1}}, "details.a key: must be text"),
    (OrderTracking, "details", {"a": {1, 2}}, "details.a: cannot be stored as JSON"),
    (OrderTracking, "urgent", 1, "urgent: must be true or false"),
    (OrderTracking, "urgent", "yes", "urgent: must be true or false"),
    (OrderTracking, "celery_task_id", "x" * 256, "celery_task_id: is 256 characters long, 255 fit"),
    (OrderTracking, "max_attempts", 0, "max_attempts: must be at least 1 (got 0)"),
    (OrderTracking, "max_attempts", -3, "max_attempts: must be at least 1 (got -3)"),
    (OrderTracking, "max_attempts", True, "max_attempts: must be a whole number"),
    (OrderTracking, "max_attempts", 2.5, "max_attempts: must be a whole number"),
    (ParcelTracking, "small", 2**15, "small: does not fit a 16-bit integer"),
    (ParcelTracking, "small", 3, "small: must be even (got 3)"),
    (ParcelTracking, "big", 2**63, "big: does not fit a 64-bit integer"),
    (ParcelTracking, "weight", "heavy", "weight: must be a number"),
    (ParcelTracking, "weight", math.nan, "weight: must be finite"),
    (ParcelTracking, "weight", 10**400, "weight: does not fit a floating-point number"),
    (ParcelTracking, "size", "huge", "size: "),
    (ParcelTracking, "label", 5, "label: must be text"),
]


@pytest.mark.parametrize(("model", "name", "value", "message"), BAD, ids=short)
def test_a_value_that_does_not_fit_its_column_is_refused_by_name(
    model: type[BaseTaskTracking], name: str, value: object, message: str
) -> None:
    required: dict[str, object] = ORDER if model is OrderTracking else {"small": 2}

    with pytest.raises(InvalidField) as caught:
        checked(model, {**required, name: value})

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", sorted(SETTABLE))
def test_a_row_that_exists_takes_domain_columns_only(name: str) -> None:
    with pytest.raises(InvalidField, match=rf"^{name}: is kept by tasktrail"):
        checked(OrderTracking, {name: None}, partial=True)


def test_a_row_that_exists_takes_some_of_its_columns_and_needs_none() -> None:
    assert checked(OrderTracking, {}, partial=True) == {}
    assert checked(OrderTracking, {"done": 3}, partial=True) == {"done": 3}


def test_the_rule_of_a_domain_sees_a_complete_row() -> None:
    with pytest.raises(InvalidField, match=r"^small: is required"):
        checked(ParcelTracking, {})


def refusal(fields: dict[str, Any]) -> InvalidField | None:
    try:
        checked(OrderTracking, fields)
    except InvalidField as error:
        return error
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, max_examples=50)
@given(fields=st.dictionaries(st.sampled_from([*OrderTracking.__table__.columns.keys(), "colour"]), JSON))
def test_any_json_is_accepted_or_refused_by_the_name_of_a_field(fields: dict[str, Any]) -> None:
    refused = refusal(fields)

    assert refused is None or re.split(r"[. \[]", refused.field)[0] in {*fields, *ORDER}


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Uuid(), "0195a1de-8c5e-7000-8000-000000000001", "field: must be a UUID"),
        (Uuid(as_uuid=False), "abc", "field: is no UUID"),
    ],
)
def test_what_is_no_uuid_is_refused(kind: Uuid[Any], value: str, message: str) -> None:
    with pytest.raises(InvalidField, match=f"^{message}"):
        check_value("field", Column("field", kind), value)
