"""Chores: done again and again beside something else, which none of them can hurt."""

from __future__ import annotations

import threading

import pytest

from tasktrail.chores import Chore, doing
from tests.waiting import until


def test_a_chore_is_done_at_once_and_again_until_the_block_ends() -> None:
    done: list[str] = []
    with doing([Chore("often", 0.001, lambda: done.append("often"))]):
        until(lambda: len(done) > 3)
    count = len(done)

    assert not [thread for thread in threading.enumerate() if thread.name == "tasktrail often"]
    assert len(done) == count


def test_a_chore_that_fails_is_logged_and_tried_again_and_hurts_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[int] = []
    others: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise ValueError("not today")

    with doing([Chore("comparison", 0.001, fail), Chore("other", 0.001, lambda: others.append(1))]):
        until(lambda: len(tries) > 2 and len(others) > 2)

    assert "comparison failed; it is tried again in 0.001 s" in caplog.messages
    assert "not today" in caplog.text


def test_no_chores_are_no_threads() -> None:
    before = threading.active_count()
    with doing([]):
        assert threading.active_count() == before
