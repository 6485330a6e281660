"""What beat starts, and when: the times are UTC, in summer and in winter."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from celery.beat import ScheduleEntry

from portfolio.config import PortfolioSettings
from portfolio.etfs.calendar import CALENDARS, final_at
from portfolio.main import Application, build
from portfolio.rates.calendar import publication_time
from portfolio.schedule import BEAT_SCHEDULE, EXPIRES, LATE, TASK
from tasktrail import Settings

SUMMER, WINTER = date(2026, 7, 1), date(2026, 12, 1)
BEFORE_SUMMER_TIME, BEFORE_WINTER_TIME = date(2026, 3, 28), date(2026, 10, 24)
TIMES = {"exchange rates": time(16, 30), "ETF prices": time(20, 0), "roll call": time(21, 45)}


@pytest.fixture
def application() -> Iterator[Application]:
    application = build(
        Settings.load(database_url="postgresql://nobody@127.0.0.1:1/none"), PortfolioSettings()
    )
    yield application
    application.celery.close()


@pytest.mark.parametrize("day", [SUMMER, WINTER, BEFORE_SUMMER_TIME, BEFORE_WINTER_TIME])
@pytest.mark.parametrize("name", TIMES)
def test_each_entry_is_due_at_its_time_in_utc_once_a_day(
    application: Application, day: date, name: str
) -> None:
    due = [datetime.combine(day + timedelta(days=n), TIMES[name], UTC) for n in range(3)]
    entry: Any = ScheduleEntry(app=application.celery, name=name, last_run_at=due[0], **BEAT_SCHEDULE[name])
    for before, then in itertools.pairwise(due):
        entry.schedule.nowfun = lambda before=before: before + timedelta(seconds=1)

        assert entry.schedule.remaining_estimate(before) == then - before - timedelta(seconds=1)
    assert set(TIMES) == set(BEAT_SCHEDULE)
    assert (application.celery.conf.timezone, application.celery.conf.enable_utc) == ("UTC", True)


@pytest.mark.parametrize("day", [SUMMER, WINTER])
def test_what_is_fetched_is_out_by_then(day: date) -> None:
    def at(name: str) -> datetime:
        return datetime.combine(day, TIMES[name], UTC)

    assert publication_time(day) < at("exchange rates")
    assert at("exchange rates") < at("ETF prices") < at("roll call")
    assert max(final_at(day, calendar) for calendar in CALENDARS) < at("roll call")


def test_no_message_of_a_day_is_good_for_the_next_one() -> None:
    last = datetime.combine(SUMMER, max(TIMES.values()), UTC)

    assert {entry["options"]["expires"] for entry in BEAT_SCHEDULE.values()} == {EXPIRES}
    assert (last + timedelta(seconds=EXPIRES)).date() == SUMMER
    assert (last + timedelta(seconds=LATE)).date() == SUMMER


def test_a_beat_that_was_down_for_days_does_not_send_what_it_missed(application: Application) -> None:
    settings = {**BEAT_SCHEDULE["roll call"]}
    four_days_ago = datetime.combine(WINTER, TIMES["roll call"], UTC) - timedelta(days=4)
    entry: Any = ScheduleEntry(
        app=application.celery, name="roll call", last_run_at=four_days_ago, **settings
    )
    for now, due in [(time(10, 0), False), (time(21, 45, 1), True), (time(22, 30), True)]:
        entry.schedule.nowfun = lambda now=now: datetime.combine(WINTER, now, UTC)

        assert entry.is_due().is_due is due


def test_every_entry_starts_a_task_there_is(application: Application) -> None:
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} == {TASK}
    assert TASK in application.celery.tasks


def test_every_celery_task_is_tracked_or_declared_untracked_with_a_reason(application: Application) -> None:
    trail = application.trail
    names = {name for name in application.celery.tasks if not name.startswith("celery.")}

    assert names == {
        "portfolio.update_exchange_rates",
        "portfolio.update_etf",
        "portfolio.create_etf",
        "portfolio.update_daily",
        "portfolio.add_daily_updates",
    }
    assert names - {domain.task_name for domain in trail.registry} == set(trail.untracked)
    assert trail.untracked == {TASK: "it only adds rows of daily updates, which are tracked themselves"}
