"""The parameters that choose rows: what they mean, and what is refused by name."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped

from tasktrail import BaseTaskTracking, BaseTaskTrackingService, InvalidField, Status, TrackingOptions
from tasktrail.registry import Domain
from tasktrail.web.choosing import meant


class Base(DeclarativeBase):
    """The model of this file; it gets no table."""


class PaymentTracking(BaseTaskTracking, Base):
    """A domain with a column that is shown to nobody."""

    __tablename__ = "payment_tracking"
    __tracking__ = TrackingOptions(domain="payment", sensitive=("iban",))

    amount: Mapped[int]
    iban: Mapped[str]
    is_urgent: Mapped[bool]


PAYMENTS = Domain(name="payment", model=PaymentTracking, service=BaseTaskTrackingService)


def test_parameters_mean_a_filter_with_the_values_of_its_columns() -> None:
    found = meant(
        PAYMENTS,
        {
            "status": ["FAILED", "CANCELLED"],
            "created_from": ["2026-01-31T12:00:00Z"],
            "attempts_from": ["2"],
            "ids": ["7", "8"],
            "error": ["Timeout"],
            "worker": ["w1"],
            "field.amount": ["250"],
            "field.is_urgent": ["true"],
        },
    )

    assert found.group is None
    assert list(found.chosen.states) == [Status.FAILED, Status.CANCELLED]
    assert found.chosen.created_from == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert (found.chosen.attempts_from, list(found.chosen.ids)) == (2, [7, 8])
    assert (found.chosen.shown_error, found.chosen.worker) == ("Timeout", "w1")
    assert found.chosen.fields == {"amount": 250, "is_urgent": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"field.iban": ["DE02"]}, "iban: is masked, so rows cannot be chosen by it"),
        ({"field.amount": ["1", "2"]}, "amount: is given twice (got '2')"),
        ({"field.amount": ["much"]}, "amount: must be a whole number (got 'much')"),
        ({"field.colour": ["red"]}, "colour: is no field of payment; it has: amount, iban, is_urgent"),
        ({"worker": ["a", "b"]}, "worker: is given twice (got 'b')"),
        ({"state": ["FAILED"]}, "state: is no parameter that chooses rows; known: status, created_from"),
        ({"status": ["failed"]}, "status: is none of PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED"),
        ({"attempts_from": ["-1"]}, "attempts_from: must be a whole number from 0 to "),
        ({"ids": ["0"]}, "ids: must be a whole number from 1 to 9223372036854775807 (got '0')"),
        ({"ids": ["9223372036854775808"]}, "ids: must be a whole number from 1 to 9223372036854775807"),
        ({"created_before": ["yesterday"]}, "created_before: write a time with its offset"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused_by_name(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidField, match=f"^{re.escape(message)}"):
        meant(PAYMENTS, given)
