"""Texts from elsewhere."""

from __future__ import annotations

from tasktrail.display import visible


def test_what_cannot_be_seen_is_made_visible() -> None:
    assert visible("a\x00\x1b[1m\u202eb\x85\tc\nd") == "a\\x00\\x1b[1m\\u202eb\\u0085\tc\nd"


def test_a_long_text_is_cut_and_says_so() -> None:
    assert visible("x" * 100_005).endswith("… and 5 characters")
