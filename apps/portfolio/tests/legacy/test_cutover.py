"""The three legacy tables through cutover and rollback: old readers see what the new side did, and more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.daily.tracking import DailyUpdateTrackingService
from portfolio.etfs.tracking import EtfCreationTrackingService, EtfUpdateTrackingService
from portfolio.legacy import readers
from portfolio.legacy.generate import generate
from portfolio.legacy.history import ETF_IDS
from portfolio.legacy.plan import PLAN
from portfolio.legacy.tables import MIGRATED
from portfolio.models import TRACKING_SCHEMA
from portfolio.rates.tracking import ExchangeRateTrackingService
from tasktrail import BaseTaskTrackingService, Status
from tasktrail.engines import Engines
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.carrier import Carrier
from tasktrail.migration.cutover import Cutover
from tasktrail.migration.gate import Conditions
from tasktrail.migration.rollback import Rollback
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace

ANY = Conditions(clean_passes=0, second_window=timedelta())
EACH = 250
"""Rows that the new side makes in each domain; a thousand in all."""

FIRST_DAY = date(2027, 1, 1)
OUTCOMES = (Status.COMPLETED, Status.FAILED, Status.PENDING)


@pytest.fixture
def workspace(engine: Engine, database_url: str) -> Workspace:
    """The plan of the portfolio on a database with dirty legacy rows."""
    generate(engine, rows=1_500, dirty=0.1, seed=9, until=date(2026, 11, 1))
    return Workspace(PLAN, Engines(database_url), TRACKING_SCHEMA)


@pytest.fixture
def db(workspace: Workspace) -> Iterator[Session]:
    with workspace.session("test") as session:
        yield session


@pytest.fixture
def cut_over(workspace: Workspace, db: Session) -> Workspace:
    """The new tables are the truth."""
    runner = Runner(workspace, db)
    runner.plan()
    runner.expand()
    runner.sync()
    runner.backfill(Backfill(workspace))
    assert [verdict.differences for verdict in runner.verify()] == [[], [], []]
    db.run("UPDATE tracking.tasktrail_raw SET accepted_at = now()")
    with db.transaction():
        workspace.journal.move(db, Phase.PARALLEL, step="parallel", window=timedelta())
    assert Cutover(workspace, db).run(ANY)
    return workspace


def outcome(number: int) -> Status:
    return OUTCOMES[number % len(OUTCOMES)]


def counts(db: Session) -> list[int]:
    return [db.value(f"SELECT count(*) FROM {table.name}") for table in MIGRATED]


async def finish(service: BaseTaskTrackingService[Any], tracking_id: int, number: int) -> None:
    status = outcome(number)
    if status is Status.PENDING:
        return
    await service.update_status(tracking_id, Status.PROCESSING)
    await service.update_status(tracking_id, status, "boom" if status is Status.FAILED else None)


async def do_work(session: AsyncSession) -> None:
    """Make rows through the services of the application, as its jobs do, and bring them to an end."""
    rates, daily = ExchangeRateTrackingService(session), DailyUpdateTrackingService(session)
    updates, creations = EtfUpdateTrackingService(session), EtfCreationTrackingService(session)
    for number in range(EACH):
        day = FIRST_DAY + timedelta(days=number)
        made = await rates.create_update_tracking(day, ["USD", "CHF"], source="ECB")
        await finish(rates, made, number)
        made = await daily.create_tracking(update_date=day, update_type="etf_prices", data_found=True)
        await finish(daily, made, number)
        made = await updates.create_update_tracking(
            ETF_IDS[number % len(ETF_IDS)], "prices_only", date(2020, 1, 1), day - timedelta(days=2_000)
        )
        await finish(updates, made, number)
        made = await creations.create_tracking(etf_id=f"NEW-{number}")
        await finish(creations, made, number)


async def test_old_readers_see_all_that_the_new_side_made_and_changed(
    cut_over: Workspace, db: Session, engine: Engine, async_session: AsyncSession
) -> None:
    before = counts(db)
    await do_work(async_session)
    restarted = db.value("SELECT target_id FROM tracking.tasktrail_ledger WHERE route = 'exchange_rates' "
                         "AND disposition = 'migrated' ORDER BY source_key::bigint DESC LIMIT 1")  # fmt: skip
    db.run("UPDATE tracking.exchange_rate_update_tracking SET status = 'FAILED', error_message = 'again', "
           f"celery_task_id = 'c', updated_at = now() WHERE id = {restarted}")  # fmt: skip
    day = db.value(f"SELECT update_date FROM tracking.exchange_rate_update_tracking WHERE id = {restarted}")

    assert Rollback(cut_over, db).losses() == []
    assert Rollback(cut_over, db).run()
    words = {Status.COMPLETED: "completed", Status.FAILED: "failed", Status.PENDING: "pending"}
    with engine.connect() as legacy:
        for number in range(EACH):
            day_made = FIRST_DAY + timedelta(days=number)
            task = readers.newest_task(legacy, "exchange_rate_update", int(f"{day_made:%Y%m%d}"))
            assert task is not None
            assert task.status == words[outcome(number)]
            assert task.error == ("boom" if outcome(number) is Status.FAILED else None)
            assert task.task_metadata == {"date": f"{day_made}", "currencies": ["USD", "CHF"]}
            done = readers.daily_update_is_done(legacy, day_made, "etf_prices")
            assert done is (outcome(number) is Status.COMPLETED)
        latest = [readers.latest_update(legacy, etf_id) for etf_id in ETF_IDS]
        again = readers.newest_task(legacy, "exchange_rate_update", int(f"{day:%Y%m%d}"))
    updates = db.rows("SELECT status FROM etf_updates ORDER BY id DESC LIMIT 250")
    creations = db.rows("SELECT status FROM task_status WHERE task_metadata ->> 'etf_id' LIKE 'NEW-%' "
                        "ORDER BY substr(task_metadata ->> 'etf_id', 5)::int DESC")  # fmt: skip
    wanted = [{"status": words[outcome(number)]} for number in reversed(range(EACH))]

    assert updates == creations == wanted
    assert all(one is not None and one.start_date == date(2020, 1, 1) for one in latest)
    assert again is not None
    assert (again.status, again.error) == ("failed", "again")
    assert [after - was for after, was in zip(counts(db), before, strict=True)] == [2 * EACH, EACH, EACH]
    assert [verdict.differences for verdict in Runner(cut_over, db).verify()] == [[], [], []]

    now = datetime.now(UTC).replace(tzinfo=None)
    with engine.begin() as legacy:
        legacy.exec_driver_sql(
            "UPDATE task_status SET status = 'completed', updated_at = %s WHERE resource_id = 20270103",
            (now,),
        )
    db.run("UPDATE tracking.tasktrail_raw SET accepted_at = now()")
    assert Cutover(cut_over, db).run(ANY)
    assert db.value("SELECT status FROM tracking.exchange_rate_update_tracking WHERE update_date = "
                    "'2027-01-03'") == "COMPLETED"  # fmt: skip
    assert Runner(cut_over, db).account().is_balanced


def test_words_and_booleans_that_cannot_say_it_are_listed_before_a_rollback(
    cut_over: Workspace, db: Session
) -> None:
    db.run("INSERT INTO tracking.daily_update_tracking (update_date, update_type, status, data_found, "
           "celery_task_id) VALUES ('2027-01-01', 'exchange_rates', 'CANCELLED', NULL, 'c'), "
           "('2027-01-02', 'exchange_rates', 'COMPLETED', FALSE, 'c'), "
           "('2027-01-03', 'exchange_rates', 'COMPLETED', TRUE, 'c')")  # fmt: skip
    losses = Rollback(cut_over, db).losses()

    assert [(loss.key, loss.expected, loss.found) for loss in losses] == [
        ('daily_updates ["2027-01-01", "exchange_rates"]', "CANCELLED", "FAILED"),
        ('daily_updates ["2027-01-02", "exchange_rates"]', "COMPLETED", "FAILED"),
    ]


@pytest.mark.parametrize("kind", ["json", "text", "jsonb"])
def test_metadata_are_written_back_in_whatever_type_the_column_has(
    workspace: Workspace, engine: Engine, kind: str
) -> None:
    with engine.begin() as legacy:
        legacy.exec_driver_sql(f"ALTER TABLE task_status ALTER task_metadata TYPE {kind} USING "
                               f"task_metadata::{kind}")  # fmt: skip
    with workspace.session("test") as db:
        runner = Runner(workspace, db)
        runner.plan()
        runner.expand()
        runner.sync()
        runner.backfill(Backfill(workspace))
        db.run("UPDATE tracking.tasktrail_raw SET accepted_at = now()")
        db.run("UPDATE tracking.tasktrail_migrations SET phase = 'parallel'")
        Cutover(workspace, db).run(ANY)
        db.run("INSERT INTO tracking.etf_creation_tracking (etf_id, task_metadata, status, celery_task_id) "
               "VALUES ('X', '{\"a\": [1]}', 'COMPLETED', 'c')")  # fmt: skip
        Carrier(workspace, db).carry()
        row = db.row("SELECT task_metadata::jsonb AS found, resource_id FROM task_status "
                     "WHERE task_metadata::text LIKE '%\"X\"%'")  # fmt: skip

        assert row == {"found": {"a": [1], "etf_id": "X"}, "resource_id": 0}


WORDS = [
    ("PENDING", 0, None, "pending"),
    ("PENDING", 1, "boom", "retrying"),
    ("PROCESSING", 0, None, "processing"),
    ("COMPLETED", 0, None, "completed"),
    ("COMPLETED", 2, "CHF is missing", "completed_with_errors"),
    ("FAILED", 3, "boom", "failed"),
    ("CANCELLED", 0, None, "cancelled"),
]


def test_each_state_is_written_back_in_the_word_that_old_code_has_for_it(
    cut_over: Workspace, db: Session
) -> None:
    rates = f"{TRACKING_SCHEMA}.exchange_rate_update_tracking"
    for number, (status, attempts, error, _) in enumerate(WORDS):
        db.run(
            f"INSERT INTO {rates} (update_date, base_currency, target_currencies, source, status, attempts, "
            "error_message, created_at, celery_task_id) VALUES (%(day)s, 'EUR', '{USD}', 'ECB', %(status)s, "
            "%(attempts)s, %(error)s, '2026-12-31 23:59+00', 'c')",
            day=FIRST_DAY + timedelta(days=number),
            status=status,
            attempts=attempts,
            error=error,
        )
    Carrier(cut_over, db).carry()
    rows = db.rows(
        "SELECT status, error, created_at::text AS made FROM task_status "
        "WHERE resource_id BETWEEN 20270101 AND 20270131 ORDER BY resource_id"
    )

    assert [(row["status"], row["error"]) for row in rows] == [(word, error) for _, _, error, word in WORDS]
    assert {row["made"] for row in rows} == {"2026-12-31 23:59:00"}


ENDED_AT = "2027-02-03T04:05:06"
CHANGES = [
    (
        "etf_updates",
        "etf_updates",
        (
            f"status = 'FAILED', error_message = 'gone', attempts = 7, completed_at = '{ENDED_AT}+00', "
            "missing_dates = '{2027-02-01}', notes = 'seen'"
        ),
        {
            "status": "failed",
            "error": "gone",
            "retry_count": 7,
            "completed_at": ENDED_AT,
            "missing_dates": ["2027-02-01"],
            "notes": "seen",
        },
    ),
    (
        "daily_updates",
        "daily_update_tracking",
        "status = 'COMPLETED', data_found = TRUE, notes = 'seen', completed_at = now()",
        {"attempted": True, "data_found": True, "notes": "seen"},
    ),
    (
        "exchange_rates",
        "exchange_rate_update_tracking",
        f"status = 'FAILED', error_message = 'gone', updated_at = '{ENDED_AT}+00'",
        {"status": "failed", "error": "gone", "updated_at": ENDED_AT},
    ),
]


@pytest.mark.parametrize(
    ("route", "table", "assignments", "expected"), CHANGES, ids=[change[0] for change in CHANGES]
)
def test_what_changes_on_the_new_side_changes_in_the_legacy_row_and_nothing_else_does(
    cut_over: Workspace, db: Session, route: str, table: str, assignments: str, expected: dict[str, Any]
) -> None:
    row = db.row(
        "SELECT table_name, source_key, target_id FROM tracking.tasktrail_ledger WHERE route = %(route)s "
        "AND disposition = 'migrated' AND deleted_at IS NULL ORDER BY source_key DESC LIMIT 1",
        route=route,
    )
    assert row is not None
    transform = next(
        staging.transform
        for staging in cut_over.stagings(db)
        if staging.transform.table.name == row["table_name"]
    )
    read = f"SELECT to_jsonb(s) AS found FROM {transform.source} s WHERE {transform.source_key} = %(key)s"
    before = db.value(read, key=row["source_key"])

    db.run(f"UPDATE tracking.{table} SET {assignments}, celery_task_id = 'c' WHERE id = {row['target_id']}")
    Carrier(cut_over, db).carry()

    assert db.value(read, key=row["source_key"]) == {**before, **expected}
