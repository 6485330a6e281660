"""Which ranges of ids no partition takes, and which tables are nobody's model."""

from __future__ import annotations

import pytest

from tasktrail.keys import batches
from tasktrail.partitions import Partition, uncovered
from tasktrail.schema import is_kept_by_tasktrail
from tests.support import Base


def there(*ranges: tuple[int, int]) -> list[Partition]:
    return [Partition(first, end, "p") for first, end in ranges]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], [(10, 20)]),
        ([(10, 20)], []),
        ([(0, 30)], []),
        ([(0, 10), (20, 30)], [(10, 20)]),
        ([(12, 14)], [(10, 12), (14, 20)]),
        ([(5, 12), (12, 14), (18, 25)], [(14, 18)]),
        ([(30, 40)], [(10, 20)]),
        ([(0, 5)], [(10, 20)]),
    ],
)
def test_what_is_not_covered_is_found(ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert uncovered(there(*ranges), 10, 20) == expected


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (0, []),
        (1, [1]),
        (2, [2]),
        (7, [4, 2, 1]),
        (512, [512]),
        (1203, [512, 512, 128, 32, 16, 2, 1]),
    ],
)
def test_rows_are_cut_into_batches_of_a_few_sizes(rows: int, sizes: list[int]) -> None:
    found = list(batches(range(rows)))

    assert [len(batch) for batch in found] == sizes
    assert [row for batch in found for row in batch] == list(range(rows))


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        ("tasktrail_version", True),
        ("parcel_tracking_p20260101", True),
        ("parcel_tracking_default", True),
        ("parcel_tracking_keys", True),
        ("parcel_tracking", False),
        ("parcel_tracking_p2026", False),
        ("order_tracking_keys", False),
        ("effects", False),
        (None, False),
    ],
)
def test_the_tables_that_no_model_describes_are_known(name: str | None, *, is_kept: bool) -> None:
    assert is_kept_by_tasktrail(name, Base.metadata) == is_kept
