"""A run without the fence, or without the rescue, is found out; the same run with them is clean."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from conftest import MakeDatabase
from tests.chaos.arena import Field, field
from tests.chaos.cluster import pause, resume
from tests.waiting import until

LEASE = 1.5
MakeField = Callable[..., AbstractContextManager[Field]]


@pytest.fixture
def make_field(
    make_database: MakeDatabase, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> MakeField:
    """Put jobs and a worker with two processes together, on the servers that all tests share."""

    def make(*without: str) -> AbstractContextManager[Field]:
        return field(
            tmp_path,
            make_database(),
            redis_url,
            queue=request.node.name,
            without=without,
            size=1,
            concurrency=2,
            lease=LEASE,
            heartbeat_interval=LEASE / 5,
            redispatch_after=1.0,
        )

    return make


def nth(field_: Field, event: str, number: int = 1) -> dict[str, Any]:
    """Wait for so many pieces of evidence of one kind, and return the last."""
    return until(lambda: field_.evidence(event)[number - 1 :], seconds=30)[-1]


def count(field_: Field, query: str) -> int:
    """Return the number that a query gives."""
    with field_.engine.connect() as db:
        return db.scalar(text(query)) or 0


def judge(field_: Field) -> set[str]:
    """Stop the workers and return the rules that are violated; these tests don't note what they order."""
    field_.fleet.close()
    return field_.violations().keys() - {"no_row_was_not_ordered"}


@pytest.mark.parametrize(
    ("without", "violated"),
    [
        ([], set()),
        (["fence"], {"each_side_effect_happened_once", "side_effects_are_of_the_attempt_that_completed"}),
    ],
    ids=["with the fence", "without the fence"],
)
def test_a_process_paused_past_its_lease_doubles_its_effect_only_without_the_fence(
    make_field: MakeField, without: list[str], violated: set[str]
) -> None:
    stale = "SELECT value FROM tracking.tasktrail_counters WHERE name = 'stale_writes'"
    with make_field(*without) as field_:
        field_.muster()
        field_.tasks.job.enqueue(key="slow", kind="slow", seconds=1.0)
        paused = psutil.Process(nth(field_, "start")["pid"])
        pause(paused)
        nth(field_, "end")  # by the other process, after the rescue
        until(lambda: field_.active() == 0)
        resume(paused)
        until(lambda: count(field_, "SELECT count(*) FROM chaos.effect") + count(field_, stale) == 2)

        assert judge(field_) == violated


@pytest.mark.parametrize(
    ("without", "is_left"), [([], False), (["rescue"], True)], ids=["with the rescue", "without the rescue"]
)
def test_the_row_of_a_killed_worker_is_left_over_only_without_the_rescue(
    make_field: MakeField, without: list[str], is_left: bool
) -> None:
    with make_field(*without) as field_:
        field_.muster()
        field_.tasks.job.enqueue(key="slow", kind="slow", seconds=1.0)
        nth(field_, "start")
        field_.fleet.workers[0].kill(orphans=False)
        field_.fleet.muster()
        nth(field_, "ready", 2)
        field_.tasks.job.enqueue(key="clock", kind="plain", seconds=2 * LEASE)
        nth(field_, "end", 1 if is_left else 2)  # the lease of the first is long over
        until(lambda: field_.active() == is_left)

        assert ("every_row_has_ended" in judge(field_)) == is_left
