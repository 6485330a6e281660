"""The last steps, killed just before or after each of their commits, and taken again by the same command."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, get_args

import pytest
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import make_url

from conftest import MakeDatabase
from tasktrail.engines import Engines
from tasktrail.errors import WrongPhase
from tasktrail.migration import sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.carrier import Carrier
from tasktrail.migration.numbering import FIRST_NEW_ID
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import MIRRORING, Phase
from tasktrail.migration.steps import troubles
from tasktrail.migration.transform import HASH
from tasktrail.migration.workspace import Workspace
from tests.migration.legacy import PLAN, create_legacy
from tests.migration.mortal import Death, Errand, Moment, Step, run_to_its_death, run_to_its_end, take
from tests.support import SCHEMA
from tests.waiting import until

PLAN_NAME = "tests.migration.legacy:PLAN"
AT_ONCE = 3
"""How many die side by side, since most of each death is waiting."""

NEWEST_ORDER = 14
"""Later ids come from a sequence, which leaves gaps where a transaction was undone."""

KEYS = """
    CREATE TABLE buyers (id int PRIMARY KEY);
    INSERT INTO buyers VALUES (1);
    ALTER TABLE old_orders ADD buyer int REFERENCES buyers;
    ALTER TABLE old_jobs ADD buyer int REFERENCES buyers;
    UPDATE old_orders SET buyer = 1 WHERE id = 1;
"""
OLD_WORK = """
    UPDATE old_orders SET note = 'late', touched = now() AT TIME ZONE 'UTC' WHERE id = 4;
    UPDATE old_jobs SET state = 'broken' WHERE id = 3;
    INSERT INTO old_jobs (payload, state, made) VALUES ('young', 'new', now() AT TIME ZONE 'UTC')
"""
NEW_WORK = """
    UPDATE tracking.order_tracking SET status = 'FAILED', error_message = 'gone wrong', celery_task_id = 'c',
        updated_at = now() WHERE day = '2024-03-01';
    INSERT INTO tracking.order_tracking (day, currency, status) VALUES ('2026-01-01', 'CHF', 'COMPLETED');
    INSERT INTO tracking.job_tracking (payload, status) VALUES ('new', 'COMPLETED');
    DELETE FROM tracking.job_tracking WHERE id = 1
"""
LATER_WORK = """
    UPDATE tracking.order_tracking SET status = 'COMPLETED', error_message = NULL, celery_task_id = 'd',
        updated_at = now() WHERE day = '2024-03-01';
    INSERT INTO tracking.order_tracking (day, currency, status) VALUES ('2026-01-02', 'CHF', 'COMPLETED');
    DELETE FROM tracking.job_tracking WHERE id = 2
"""
STRAGGLERS = "UPDATE old_jobs SET payload = 'straggled' WHERE id = 4"

PREPARED: Final[dict[Step, tuple[Step | None, str]]] = {
    "parallel": (None, OLD_WORK),
    "compare": ("parallel", OLD_WORK),
    "cutover": ("parallel", OLD_WORK),
    "rollback": ("cutover", f"{NEW_WORK}; {STRAGGLERS}"),
    "archive": ("cutover", NEW_WORK),
    "drop": ("archive", LATER_WORK),
    "restore": ("drop", "DELETE FROM tracking.job_tracking WHERE id = 6"),
}
"""For each step the one that was taken before, and what workers did since."""

REACHED: Final[dict[Step, Phase]] = {
    "parallel": Phase.PARALLEL,
    "compare": Phase.PARALLEL,
    "cutover": Phase.CUT_OVER,
    "rollback": Phase.PARALLEL,
    "archive": Phase.ARCHIVED,
    "drop": Phase.DROPPED,
    "restore": Phase.CUT_OVER,
}
TABLES: Final = {
    "old_orders": f"SELECT *, CASE WHEN id <= {NEWEST_ORDER} THEN id END AS id FROM old_orders",
    "old_jobs": "SELECT * FROM old_jobs",
    "archived_old_orders": f"SELECT *, CASE WHEN id <= {NEWEST_ORDER} THEN id END AS id "
    "FROM tracking.archived_old_orders",
    "archived_old_jobs": "SELECT * FROM tracking.archived_old_jobs",
    "orders": "SELECT *, NULL AS id FROM tracking.order_tracking",
    "jobs": "SELECT * FROM tracking.job_tracking",
    "ledger": "SELECT table_name, CASE WHEN table_name = 'old_jobs' OR source_key::int <= "
    f"{NEWEST_ORDER} THEN source_key END AS key, disposition, route, target_key, reason, inferred::text, "
    "rule_version, deleted_at IS NULL AS is_live, CASE route WHEN 'jobs' THEN target_id END AS id, "
    "route IS NULL OR target_id IS NOT NULL OR deleted_at IS NOT NULL OR disposition <> 'migrated' AS has_id "
    "FROM tracking.tasktrail_ledger",
    "raw": "SELECT table_name, source_key, accepted_at IS NULL AS is_open FROM tracking.tasktrail_raw",
    "queue": "SELECT side, table_name, source_key, operation FROM tracking.tasktrail_changes",
    "phase": "SELECT phase, is_holding, is_paused, window_ends_at IS NULL AS has_no_window "
    "FROM tracking.tasktrail_migrations",
    "phases so far": "SELECT what FROM tracking.tasktrail_migration_events WHERE what LIKE '%->%'",
    "drift": "SELECT table_name, found_by, row_key, what, passes, healed_at IS NULL AS is_open "
    "FROM tracking.tasktrail_drift",
    "archives": "SELECT table_name, archive, rows, tested_at > archived_at AS is_tested, "
    "dropped_at IS NULL AS is_there FROM tracking.tasktrail_archives",
    "triggers": "SELECT tgname, tgrelid::regclass::text, tgenabled FROM pg_trigger WHERE NOT tgisinternal",
    "functions": "SELECT proname FROM pg_proc WHERE proname LIKE 'tasktrail_note_%'",
    "relations": "SELECT nspname, relname, relkind FROM pg_class JOIN pg_namespace "
    "ON pg_namespace.oid = relnamespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
    "schemas": "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'",
    "constraints": "SELECT conrelid::regclass::text, conname, convalidated FROM pg_constraint "
    "WHERE contype IN ('f', 'c', 'p') AND conrelid::regclass::text LIKE '%old_%'",
    "sequence of the jobs": "SELECT last_value, is_called FROM tracking.job_tracking_id_seq",
    "sequence of the old jobs": "SELECT last_value, is_called FROM old_jobs_id_seq",
}
"""What must not depend on how it came about."""

LOCKS = """
    SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextmanager
def session_on(url: str) -> Iterator[tuple[Workspace, Session]]:
    workspace = Workspace(PLAN, Engines(url), SCHEMA)
    with workspace.session("test") as session:
        yield workspace, session


@pytest.fixture(scope="module")
def began(make_database: MakeDatabase) -> datetime:
    """A moment before all that these tests do."""
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def verified(began: datetime, make_database: MakeDatabase, library_template: str) -> str:
    """Name of a database in the phase ``verified``, what is quarantined accepted."""
    url = make_database(library_template)
    engine = create_engine(url, poolclass=NullPool)
    create_legacy(engine)
    with session_on(url) as (workspace, db):
        db.run(KEYS)
        runner = Runner(workspace, db)
        runner.plan()
        runner.expand()
        runner.sync()
        runner.backfill(Backfill(workspace))
        assert not any(verdict.differing for verdict in runner.verify())
        db.run("UPDATE tracking.tasktrail_raw SET accepted_at = now()")
    return name_of(url)


Bring = dict[Step | None, str]


@pytest.fixture(scope="module")
def prepared(verified: str, make_database: MakeDatabase) -> Bring:
    """Names of databases by the step to be taken in them; made when they are asked for."""

    class Prepared(Bring):
        def __missing__(self, step: Step) -> str:
            before, work = PREPARED[step]
            url = make_database(verified if before is None else self[before])
            with session_on(url) as (workspace, db):
                if before is not None:
                    take(Errand(PLAN_NAME, url, before), workspace, db)
                for statement in work.split(";"):
                    db.run(statement)
                if step == "drop":
                    Carrier(workspace, db).carry()
            self[step] = name_of(url)
            return self[step]

    return Prepared()


def name_of(url: str) -> str:
    return make_url(url).database or ""


def outcome(url: str, began: datetime) -> dict[str, Any]:
    """Return everything that must not depend on how it came about; nothing must be left to do."""
    with session_on(url) as (workspace, db):
        until(lambda: db.value(LOCKS) == 0)
        assert troubles(db, workspace) == []
        account = Runner(workspace, db).account()
        assert account.is_balanced
        found: dict[str, Any] = {"account": account}
        for name, query in TABLES.items():
            if db.value(
                "SELECT to_regclass(%(table)s) IS NULL", table=query.rpartition("FROM ")[2].split()[0]
            ):
                continue  # it is gone, or not made yet; the relations say so
            rows = ({key: _timeless(value, began) for key, value in row.items()} for row in db.rows(query))
            found[name] = sorted(map(str, rows))
        phase = workspace.journal.require(db, "look").phase
        if phase is not Phase.DROPPED:
            assert {name: _wrong_hashes(db, name) for name in ("old_orders", "old_jobs")} == {
                "old_orders": 0,
                "old_jobs": 0,
            }
        if phase is Phase.PARALLEL:
            assert [verdict.differing for verdict in Runner(workspace, db).verify()] == [0, 0, 0]
            assert sync.lag(db, workspace, side=None).entries == 0
        return found


def _wrong_hashes(db: Session, table: str) -> int:
    found: int = db.value(
        f"SELECT count(*) FROM {table} s JOIN tracking.tasktrail_ledger l ON l.table_name = '{table}' "
        f"AND l.source_key = s.id::text AND l.deleted_at IS NULL WHERE l.source_hash <> {HASH} "
        f"AND NOT EXISTS (SELECT FROM tracking.tasktrail_changes c WHERE c.source_key = l.source_key "
        f"AND c.table_name IN ('{table}', '{table}.' || l.route))"
    )
    return found


def _timeless(value: Any, began: datetime) -> Any:
    """Return a value that says of a moment after the tests began only that it is one."""
    if not isinstance(value, datetime):
        return value
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return "since" if moment >= began else value


def numbers_as_the_phase_says(workspace: Workspace, db: Session) -> bool:
    """Return whether new ids are where the phase wants them, before anything is mended."""
    phase = workspace.journal.require(db, "look").phase
    is_apart = db.value("SELECT last_value FROM tracking.job_tracking_id_seq") >= FIRST_NEW_ID
    return bool(is_apart == (phase in MIRRORING))


@pytest.mark.parametrize("step", PREPARED)
def test_killed_just_before_or_after_any_commit_and_run_again_it_ends_in_the_same_tables(
    prepared: Bring, make_database: MakeDatabase, began: datetime, step: Step
) -> None:
    undisturbed = Errand(PLAN_NAME, make_database(prepared[step]), step)
    commits = run_to_its_end(undisturbed)
    deaths = [Death(commit, moment) for commit in range(1, commits + 1) for moment in get_args(Moment)]
    expected = outcome(undisturbed.url, began)

    def die_and_go_on(death: Death) -> dict[str, Any]:
        errand = Errand(PLAN_NAME, make_database(prepared[step]), step)
        run_to_its_death(errand, death)
        with session_on(errand.url) as (workspace, db):
            assert numbers_as_the_phase_says(workspace, db)
            if step == "restore" and death == deaths[-1]:
                with pytest.raises(WrongPhase, match="the migration is cut_over"):
                    take(errand, workspace, db)
            else:
                take(errand, workspace, db)
        return outcome(errand.url, began)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for death, found in zip(deaths, pool.map(die_and_go_on, deaths), strict=True):
            assert found == expected, death
    assert len(deaths) >= 2
