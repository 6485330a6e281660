"""A rehearsal: dirty rows as the generator makes them, and old workers that write while they are migrated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date

import pytest
from sqlalchemy import Engine

from portfolio.legacy.generate import generate
from portfolio.legacy.migrate import (
    migrate_daily_updates,
    migrate_etf_updates,
    migrate_exchange_rate_tasks,
)
from portfolio.legacy.plan import PLAN
from portfolio.legacy.simulate import Simulation
from portfolio.main import Application
from portfolio.models import TRACKING_SCHEMA
from tasktrail.engines import Engines
from tasktrail.migration import account, carrier, dry_run, sync
from tasktrail.migration.account import Account
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.workspace import Workspace
from tests.waiting import until


@pytest.fixture
def workspace(engine: Engine, database_url: str) -> Workspace:
    """The plan of the portfolio on a database with dirty legacy rows."""
    generate(engine, rows=3_000, dirty=0.1, seed=5, until=date(2026, 11, 1))
    return Workspace(PLAN, Engines(database_url), TRACKING_SCHEMA)


@pytest.fixture
def session(workspace: Workspace) -> Iterator[Session]:
    with workspace.session("test") as session:
        yield session


def migrated(runner: Runner, chunk_size: int | None = None) -> None:
    runner.plan()
    runner.expand()
    runner.sync()
    runner.backfill(Backfill(runner.workspace, chunk_size=chunk_size))


def test_generated_rows_are_migrated_as_the_dry_run_says_and_found_right(
    workspace: Workspace, session: Session
) -> None:
    runner = Runner(workspace, session)
    predicted = runner.plan().prediction.account
    migrated(runner)
    verdicts = runner.verify()

    assert dry_run.differences(predicted, runner.account()) == []
    assert [verdict.differences for verdict in verdicts] == [[], [], []]
    assert runner.account().total("quarantined") > 20


def test_old_workers_notice_nothing_and_every_row_is_accounted_for_at_every_moment(
    workspace: Workspace, session: Session, engine: Engine
) -> None:
    unbalanced: list[Account] = []
    looks = 0
    stop, follow_no_more = threading.Event(), threading.Event()

    def observe() -> None:
        nonlocal looks
        with workspace.session("observer") as observer:
            stagings = workspace.stagings(observer)
            while not stop.is_set():
                seen = account.take(observer, workspace, stagings)
                looks += 1
                if not seen.is_balanced:
                    unbalanced.append(seen)

    def follow() -> None:
        with workspace.session("follower") as follower:
            carrier.follow(follower, workspace, follow_no_more, interval=0.02, share=0.5)

    threads = [threading.Thread(target=observe), threading.Thread(target=follow)]
    runner = Runner(workspace, session)
    with Simulation(engine.url, rate=60, processes=2, seed=3) as simulation:
        runner.plan()
        runner.expand()
        runner.sync()
        for thread in threads:
            thread.start()
        runner.backfill(Backfill(workspace, chunk_size=100))
        until(lambda: looks > 20, seconds=60)
        summary = simulation.stop()
    stop.set()
    until(lambda: not sync.lag(session, workspace).entries, seconds=60)
    follow_no_more.set()
    for thread in threads:
        thread.join(30)
    verdicts = runner.verify()

    assert summary.errors == {}
    assert sum(summary.changes.values()) > 50
    assert unbalanced == []
    assert [verdict.differences for verdict in verdicts] == [[], [], []]
    assert [verdict.pending for verdict in verdicts] == [0, 0, 0]


def test_each_table_can_be_migrated_by_a_function_of_its_own_and_all_of_them_are_a_whole_copy(
    workspace: Workspace, session: Session, application: Application
) -> None:
    names = ("task_status", "etf_updates", "daily_update_tracking")
    steps = (migrate_exchange_rate_tasks, migrate_etf_updates, migrate_daily_updates)
    for number, step in enumerate(steps):
        found = step(application.trail)
        pending = [name for name in names if found.total("pending", table=name)]

        assert pending == list(names[number + 1 :])
        assert found.is_balanced
    runner = Runner(workspace, session)

    assert [verdict.differing for verdict in runner.verify()] == [0, 0, 0]
    assert migrate_daily_updates(application.trail) == runner.account()
