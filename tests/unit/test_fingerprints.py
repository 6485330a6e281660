"""What two errors have in common."""

from __future__ import annotations

import pytest

from tasktrail.fingerprints import fingerprint, group_of


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (None, ""),
        ("ValueError: row 17 of 25", "ValueError: row <n> of <n>"),
        ("Http404Error: got 404", "Http404Error: got <n>"),
        ("KeyError: 'EUR'", "KeyError: '…'"),
        ('E: relation "a b" is gone', 'E: relation "…" is gone'),
        ("E: can't open 'x'", "E: can't open '…'"),
        ("E: id 0b1f9a52-8c1e-4f0e-9d7e-0123456789ab", "E: id <id>"),
        ("E: commit 9fceb02d0ae598e9", "E: commit <id>"),
        ("E: at 0x7f3a2b", "E: at <id>"),
        ("E: since 2026-11-29T01:02:03.5+00:00, now", "E: since <time>, now"),
        ("E: at 12:30:01", "E: at <time>"),
        ("E: 1,234.5 of -3", "E: <n> of <n>"),
        ("E: two\n\n  lines", "E: two lines"),
        ("no class at all 5", "no class at all <n>"),
    ],
)
def test_what_differs_from_time_to_time_is_folded(message: str | None, expected: str) -> None:
    assert fingerprint(message) == expected


def test_a_long_error_has_a_short_fingerprint() -> None:
    assert len(fingerprint("E: " + "word " * 2000)) == 300


def test_errors_that_differ_in_a_number_only_are_of_one_group() -> None:
    assert group_of("E: row 1") == group_of("E: row 22")
    assert group_of("E: row 1") != group_of("F: row 1")
