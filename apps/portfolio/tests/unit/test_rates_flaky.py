"""The source that fails on demand, and its count that processes share."""

import asyncio
import multiprocessing
from datetime import date
from decimal import Decimal

import pytest

from portfolio.rates.errors import SourceDown
from portfolio.rates.flaky import FlakySource
from portfolio.rates.sources import BundledHistory
from tasktrail import InvalidField

FRIDAY = date(2026, 10, 30)
THURSDAY = date(2026, 10, 29)


async def test_a_flaky_source_fails_as_often_as_planned_and_then_answers(tmp_path):
    source = FlakySource(BundledHistory(), {FRIDAY: 2}, tmp_path / "calls", retry_after=3.0)

    for call in (1, 2):
        with pytest.raises(SourceDown, match=f"planned failure {call} of 2 for 2026-10-30") as caught:
            await source.fetch(FRIDAY, ["USD"])
        assert caught.value.retry_after == 3.0
    actual = await source.fetch(FRIDAY, ["USD"])

    assert {"USD": Decimal("1.1172")} == actual.rates
    assert source.calls(FRIDAY) == 3


async def test_a_flaky_source_leaves_other_days_alone(tmp_path):
    source = FlakySource(BundledHistory(), {FRIDAY: 1}, tmp_path)

    actual = await source.fetch(THURSDAY, ["USD"])

    assert actual.day == THURSDAY
    assert source.calls(THURSDAY) == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_new_process_goes_on_counting(tmp_path):
    with pytest.raises(SourceDown):
        await FlakySource(BundledHistory(), {FRIDAY: 1}, tmp_path).fetch(FRIDAY, ["USD"])

    assert (await FlakySource(BundledHistory(), {FRIDAY: 1}, tmp_path).fetch(FRIDAY, ["USD"])).day == FRIDAY


def count_failures(source: FlakySource, start, failures) -> None:
    start.wait()
    failed = 0
    for _ in range(100):
        try:
            asyncio.run(source.fetch(FRIDAY, ["USD"]))
        except SourceDown:
            failed += 1
    failures.put(failed)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_processes_that_call_at_once_share_the_count(tmp_path):
    context = multiprocessing.get_context("fork")  # as the worker pool of Celery does
    source = FlakySource(BundledHistory(), {FRIDAY: 150}, tmp_path)
    start, failures = context.Barrier(3), context.SimpleQueue()
    callers = [context.Process(target=count_failures, args=(source, start, failures)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)

    assert [caller.exitcode for caller in callers] == [0, 0, 0]
    assert sum(failures.get() for _ in callers) == 150
    assert source.calls(FRIDAY) == 300


def test_a_negative_number_of_failures_is_refused(tmp_path):
    with pytest.raises(InvalidField, match=r"^failures: the number for 2026-10-30 cannot be negative"):
        FlakySource(BundledHistory(), {FRIDAY: -1}, tmp_path)
