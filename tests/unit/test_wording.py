"""Numbers, times and texts as pages show them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasktrail.web import wording

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "—"),
        (0.0005, "0 ms"),
        (0.25, "250 ms"),
        (12.34, "12.3 s"),
        (90, "1.5 min"),
        (900, "15 min"),
        (7200, "2 h"),
        (200_000, "2.3 d"),
    ],
)
def test_a_length_of_time_is_in_the_largest_unit_that_fits(value: float | None, expected: str) -> None:
    assert wording.seconds(value) == expected


@pytest.mark.parametrize(
    ("passed", "expected"), [(0, "now"), (90, "1.5 min ago"), (-30, "in 30.0 s"), (86_400, "1 d ago")]
)
def test_a_moment_is_told_from_now(passed: float, expected: str) -> None:
    assert wording.ago(NOW - timedelta(seconds=passed), NOW) == expected


def test_a_moment_says_its_zone() -> None:
    assert wording.moment(NOW) == "2026-03-01 12:00:00 UTC"


@pytest.mark.parametrize(
    ("share", "expected"),
    [(None, "—"), (1.0, "100.0 %"), (0.9999, "> 99.9 %"), (0.5, "50.0 %"), (0.0, "0.0 %")],
)
def test_a_share_is_never_rounded_up_to_all(share: float | None, expected: str) -> None:
    assert wording.percent(share) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "—"), (0, "0"), (0.123456, "0.123"), (1234.5, "1,234"), (99.94, "99.9")]
)
def test_a_rate_has_three_digits(value: float | None, expected: str) -> None:
    assert wording.rate(value) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "—"),
        (NOW, "2026-03-01 12:00:00 UTC"),
        (NOW.date(), "2026-03-01"),
        (["a", 2], '["a", 2]'),
        ({"a": 1}, '{"a": 1}'),
        ([["a"]], '[\n  [\n    "a"\n  ]\n]'),
        (["x" * 100], f'[\n  "{"x" * 100}"\n]'),
        (5, "5"),
    ],
)
def test_a_value_is_shown_by_its_type(content: object, expected: str) -> None:
    assert wording.value(content) == expected
