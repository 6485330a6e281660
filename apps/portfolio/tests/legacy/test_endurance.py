"""The endurance run, small: ``make endurance`` is the long one. And whether its oracle sees what is wrong."""

from __future__ import annotations

from datetime import date

import pytest
from apps.portfolio.tests.legacy import oracle
from apps.portfolio.tests.legacy.endurance import Options, run, scratch, show
from rich.console import Console
from sqlalchemy import Engine

from portfolio.legacy.generate import generate
from portfolio.legacy.plan import PLAN
from portfolio.models import TRACKING_SCHEMA
from tasktrail.engines import Engines
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.runner import Runner
from tasktrail.migration.workspace import Workspace


@pytest.mark.timeout(400)
def test_every_row_arrives_while_old_workers_write_and_the_account_is_taken_all_along() -> None:
    options = Options(rows=10_000, writers=2, rate=60, seconds=3, rounds=1, looks=10, turns=1)
    with scratch() as folder:
        report = run(options, folder)
    show(report, options, Console(width=130))

    assert report.violations == []
    assert report.migrating is not None
    assert report.migrating.changes.total() > 50
    assert int(report.figures["looks at the account"]) >= 10


@pytest.fixture
def migrated(engine: Engine, database_url: str) -> Engine:
    generate(engine, rows=1_000, dirty=0.2, seed=5, until=date(2026, 11, 1))
    workspace = Workspace(PLAN, Engines(database_url), TRACKING_SCHEMA)
    with workspace.session("test") as session:
        runner = Runner(workspace, session)
        runner.plan()
        runner.expand()
        runner.sync()
        runner.backfill(Backfill(workspace))
    return engine


RATES = "tracking.exchange_rate_update_tracking"
DAILY = "tracking.daily_update_tracking"
LEDGER = "tracking.tasktrail_ledger"
ENTRY = '[{"number": 1, "start": "2024-03-01T00:00:00+00:00", "end": "2024-03-01T00:00:00+00:00"}]'
DAMAGE = [
    (f"UPDATE {RATES} SET success_count = 77 WHERE id = (SELECT min(id) FROM {RATES})", "count is 77"),
    (f"UPDATE {RATES} SET attempt_log = '{ENTRY}' WHERE id = (SELECT min(id) FROM {RATES})", "log is [{"),
    ("UPDATE tracking.etf_updates SET worker = 'w1' WHERE id = 3", "worker is 'w1', must be None"),
    (f"DELETE FROM {DAILY} WHERE id = (SELECT min(id) FROM {DAILY})", "is missing"),
    ("INSERT INTO tracking.etf_creation_tracking (etf_id) VALUES ('new')", "no legacy row became this"),
    (f"DELETE FROM {LEDGER} WHERE source_key = '7' AND table_name = 'task_status'", "(7,): the ledger has"),
    (f"UPDATE {LEDGER} SET reason = 'guess' WHERE reason = 'unknown_status'", "('quarantined', 'guess')"),
    ("DELETE FROM task_status WHERE id = 11", "(11,)"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_the_oracle_sees_what_is_wrong(migrated: Engine, damage: str, said: str) -> None:
    url = migrated.url.set(drivername="postgresql").render_as_string(hide_password=False)
    assert oracle.differences(url) == []
    with migrated.begin() as db:
        assert db.exec_driver_sql(damage).rowcount > 0

    assert any(said in difference for difference in oracle.differences(url, limit=1000))
