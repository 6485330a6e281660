"""A migration that is killed at any moment and started again ends in the same tables, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from random import Random
from typing import get_args

import pytest
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.engine import make_url

from conftest import MakeDatabase
from portfolio.legacy.generate import generate
from portfolio.legacy.plan import PLAN
from portfolio.legacy.workers import OldWorker
from portfolio.models import TRACKING_SCHEMA
from tasktrail.engines import Engines
from tasktrail.migration import sync
from tasktrail.migration.names import qualified
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.mortal import (
    Death,
    Errand,
    Moment,
    Step,
    killed_at_random,
    run_to_its_death,
    run_to_its_end,
)

PLAN_NAME = "portfolio.legacy.plan:PLAN"
DEATHS = 100
LONGEST_LIFE = 0.3
AT_ONCE = 3
"""How many die side by side, since most of each death is waiting."""

LEDGER = """
    SELECT to_jsonb(l) - '{chunk,target_id,deleted_at}'::text[] || jsonb_build_object(
        'is_live', deleted_at IS NULL, 'kept_id', CASE WHEN route = ANY(%(kept)s) THEN target_id END
    ) AS x FROM tracking.tasktrail_ledger l
"""
PROGRESS = """
    SELECT table_name, bound, cursor, chunk, rows_done, errors, finished_at IS NULL AS is_unfinished
    FROM tracking.tasktrail_migration_tables ORDER BY table_name
"""


@contextmanager
def session_on(url: str) -> Iterator[tuple[Workspace, Session]]:
    workspace = Workspace(PLAN, Engines(url), TRACKING_SCHEMA)
    with workspace.session("test") as session:
        yield workspace, session


def checksums(session: Session) -> dict[str, str]:
    """Return a checksum of everything that must not depend on how it came about.

    Where the new side numbers its rows, and in which chunk a row came, does.
    """
    routes = [route for table in PLAN.tables for route in table.routes]
    queries = {
        route.target: f"SELECT to_jsonb(t) - %(dropped)s::text[] AS x FROM {qualified(route.target)} t"
        for route in routes
    }
    queries["ledger"] = LEDGER
    queries["raw"] = "SELECT to_jsonb(w) - 'noted_at' AS x FROM tracking.tasktrail_raw w"
    kept = [route.name for route in routes if route.keeps_ids]
    numbered = {route.target for route in routes if not route.keeps_ids}
    return {
        name: session.value(
            f"""SELECT count(*) || ' ' || md5(string_agg(x::text, '|' ORDER BY x::text COLLATE "C"))
                FROM ({query}) rows, (SELECT %(dropped)s, %(kept)s) parameters""",
            dropped=["id"] if name in numbered else [],
            kept=kept,
        )
        for name, query in queries.items()
    }


def outcome(url: str) -> tuple[dict[str, str], list[dict[str, object]]]:
    """Return the checksums, and how many chunks and rows were counted; nothing must be left to do."""
    with session_on(url) as (workspace, session):
        assert Runner(workspace, session).account().total("pending", "unaccounted", "ghost") == 0
        assert sync.lag(session, workspace).entries == 0
        assert workspace.journal.require(session, "look").phase is Phase.BACKFILLED
        return checksums(session), session.rows(PROGRESS)


@pytest.fixture
def bring_to(make_database: MakeDatabase, portfolio_template: str):
    """Bring dirty rows up to a phase; what old workers did since the triggers were put on is in the queue."""

    def bring(phase: Phase, rows: int) -> str:
        url = make_database(portfolio_template)
        engine = create_engine(url, poolclass=NullPool)
        generate(engine, rows=rows, dirty=0.25, seed=11, until=date(2026, 11, 1))
        with session_on(url) as (workspace, session):
            runner = Runner(workspace, session)
            runner.plan()
            runner.expand()
            if phase is Phase.SYNCING:
                runner.sync()
                write(engine, rows)
        return make_url(url).database or ""

    return bring


def write(engine: Engine, times: int) -> None:
    left = iter(range(times + 1))
    OldWorker(engine, 1, 0).work(1e9, lambda _: next(left, None) is None)


def resumed(errand: Errand) -> None:
    """Run the steps that are left, and what is left of them."""
    if errand.step == "sync":
        run_to_its_end(errand)
    run_to_its_end(Errand(errand.plan, errand.url, chunk_size=errand.chunk_size))


@pytest.mark.parametrize(("step", "phase"), [("sync", Phase.EXPANDED), ("backfill", Phase.SYNCING)])
def test_killed_just_before_or_after_any_commit_and_resumed_it_ends_in_the_same_tables(
    bring_to, make_database: MakeDatabase, step: Step, phase: Phase
) -> None:
    template = bring_to(phase, rows=40)
    undisturbed = Errand(PLAN_NAME, make_database(template), step, chunk_size=20)
    commits = run_to_its_end(undisturbed)
    resumed(undisturbed)
    expected = outcome(undisturbed.url)
    deaths = [Death(commit, moment) for commit in range(1, commits + 1) for moment in get_args(Moment)]

    def die_and_go_on(death: Death) -> tuple[dict[str, str], list[dict[str, object]]]:
        errand = Errand(PLAN_NAME, make_database(template), step, chunk_size=20)
        run_to_its_death(errand, death)
        resumed(errand)
        return outcome(errand.url)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for death, found in zip(deaths, pool.map(die_and_go_on, deaths), strict=True):
            assert found == expected, death
    assert commits >= 5


@pytest.mark.timeout(400)
def test_killed_a_hundred_times_at_random_moments_it_ends_in_the_same_tables(
    bring_to, make_database: MakeDatabase
) -> None:
    template = bring_to(Phase.SYNCING, rows=1_500)
    undisturbed = Errand(PLAN_NAME, make_database(template))
    run_to_its_end(undisturbed)
    expected = outcome(undisturbed.url)
    dice, deaths, copies = Random(7), 0, 0
    while deaths < DEATHS:
        errand, copies = Errand(PLAN_NAME, make_database(template)), copies + 1
        while deaths < DEATHS and killed_at_random(errand, dice, LONGEST_LIFE):
            deaths += 1
        run_to_its_end(errand)

        assert outcome(errand.url) == expected
