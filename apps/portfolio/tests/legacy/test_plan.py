"""The plan's SQL: line by line what the page says, and on every dirty row the same as the twins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from apps.portfolio.tests.legacy import dirty, loose
from apps.portfolio.tests.legacy.case import Case, Row, source_of
from apps.portfolio.tests.legacy.cases import CASES
from apps.portfolio.tests.legacy.judge import judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from portfolio.legacy.plan import DAILY_UPDATES, ETF_UPDATES, PLAN, TASK_STATUS
from portfolio.models import TRACKING_SCHEMA
from tasktrail.engines import Engines
from tasktrail.migration import account, dry_run, sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.plan import Mapped, MigrationPlan, Refused
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.transform import Transform
from tasktrail.migration.verify import verify_account, verify_checksums
from tasktrail.migration.witness import verify_twins
from tasktrail.migration.workspace import Workspace

LOOSE_DAILY = replace(
    DAILY_UPDATES, key=("id",), source_columns={**DAILY_UPDATES.source_columns, "id": ("bigint",)}
)
LOOSE_PLAN = MigrationPlan(name="portfolio", tables=(TASK_STATUS, ETF_UPDATES, LOOSE_DAILY))
"""The plan for tables as loose as those of the tests, where a day or a type may be NULL and so is no key."""


@pytest.fixture(scope="module")
def loosened(make_database: Any, portfolio_template: str) -> Workspace:
    """A database whose legacy tables take any row."""
    url = make_database(portfolio_template)
    engine = create_engine(url)
    with engine.begin() as db:
        loose.loosen(db)
    engine.dispose()
    return Workspace(LOOSE_PLAN, Engines(url), TRACKING_SCHEMA)


@pytest.fixture(scope="module")
def session(loosened: Workspace) -> Iterator[Session]:
    with loosened.session("test") as session:
        yield session


@pytest.fixture(scope="module")
def transforms(loosened: Workspace, session: Session) -> dict[str, Transform]:
    return {transform.table.name: transform for transform in loosened.inspect(session).transforms}


def without_usual_id(row: Row) -> Row:
    """A row that may stand beside the others: the cases all have the same id where it does not matter."""
    return {name: value for name, value in row.items() if (name, value) != ("id", 7)}


def insert(session: Session, row: Row) -> str:
    names = ", ".join(row)
    places = ", ".join(f"%({name})s" for name in row)
    text = f"INSERT INTO {source_of(row)} ({names}) VALUES ({places}) RETURNING id::text"
    return str(session.value(text, **row))


def judged_by_sql(
    session: Session, transforms: dict[str, Transform], rows: list[Row]
) -> list[Mapped | Refused]:
    """Return what the plan's SQL makes of each row, leaving nothing behind."""
    verdicts: dict[tuple[str, str], Mapped | Refused] = {}
    with session.snapshot(keep=False):
        keys = [(source_of(row), insert(session, row)) for row in rows]
        for name, transform in transforms.items():
            among = f"{transform.source} s"
            for route in transform.table.routes:
                for found in session.rows(transform.rows(route, among)):
                    verdicts[name, found["_source_key"]] = (
                        Mapped(
                            {column: found[column] for column in route.columns},
                            frozenset(found["_inferred"] or ()),
                        )
                        if found["_reason"] is None
                        else Refused(found["_disposition"], found["_reason"])
                    )
            for found in session.rows(transform.others(among)):
                verdicts[name, found["_source_key"]] = Refused(found["_disposition"], found["_reason"])
    return [verdicts[key] for key in keys]


@pytest.fixture(scope="module")
def by_sql(session: Session, transforms: dict[str, Transform]) -> dict[int, Mapped | Refused]:
    """What the plan's SQL makes of all cases at once."""
    found = judged_by_sql(session, transforms, [without_usual_id(case.row) for case in CASES])
    return {id(case): verdict for case, verdict in zip(CASES, found, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_sql_makes_of_a_row_what_its_line_says(case: Case, by_sql: dict[int, Mapped | Refused]) -> None:
    made = by_sql[id(case)]
    if case.disposition != "migrated":
        assert made == Refused(case.disposition, case.reason or "")
        return

    assert isinstance(made, Mapped)
    values = without_usual_id(dict(case.values))
    assert {name: made.values[name] for name in values} == values
    assert case.inferred is None or made.inferred == case.inferred


@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture
    ],
)  # fmt: skip
@given(rows=st.lists(dirty.any_rows(), min_size=5, max_size=20))
def test_sql_and_twin_agree_on_every_dirty_row(
    session: Session, transforms: dict[str, Transform], rows: list[Row]
) -> None:
    rows = [without_usual_id(row) for row in rows]
    for row, made in zip(rows, judged_by_sql(session, transforms, rows), strict=True):
        assert made == judge(
            source_of(row), {**row, "id": made.values["id"]} if has_id(row, made) else row
        ), row


def has_id(row: Row, made: Mapped | Refused) -> bool:
    """Whether the row keeps an id that only the database knew."""
    return isinstance(made, Mapped) and "id" in made.values and "id" not in row


def test_all_cases_together_are_migrated_and_found_right_in_three_ways(
    make_database: Any, portfolio_template: str
) -> None:
    url = make_database(portfolio_template)
    engine = create_engine(url)
    with engine.begin() as db:
        loose.loosen(db)
    workspace = Workspace(LOOSE_PLAN, Engines(url), TRACKING_SCHEMA)
    with workspace.session("test") as session:
        for case in CASES:
            insert(session, without_usual_id(case.row))
        prediction = dry_run.predict(session, workspace)
        run_to_the_end_of_the_copy(workspace, session)
        stagings = workspace.stagings(session)
        with session.snapshot(read_only=True):
            verdicts = [
                verify(session, workspace, stagings)
                for verify in (verify_account, verify_checksums, verify_twins)
            ]
        found = account.take(session, workspace, stagings)
    engine.dispose()

    assert [verdict.differences for verdict in verdicts] == [[], [], []]
    assert dry_run.differences(prediction.account, found) == []
    assert found.is_balanced
    daily = {line.kind for line in found.lines if line.table == "daily_update_tracking"}
    assert {"etf_prices_*", "etf_prices", "exchange_rates"} < daily  # one line for all that name an ETF
    assert not any("EUNL" in kind for kind in daily)
    assert min(found.total(fate) for fate in ("migrated", "consolidated", "quarantined", "archived")) > 0


def run_to_the_end_of_the_copy(workspace: Workspace, session: Session, chunk_size: int = 50) -> None:
    workspace.journal.begin(session)
    with session.transaction():
        workspace.journal.move(session, Phase.EXPANDED, step="expand")
    for staging in workspace.stagings(session):
        sync.install(session, workspace, staging)
    with session.transaction():
        workspace.journal.move(session, Phase.SYNCING, step="sync")
    Backfill(workspace, chunk_size=chunk_size).run(session)


@pytest.mark.parametrize("kind", ["jsonb", "json"])
def test_the_plan_fits_production_whichever_type_its_metadata_have(
    database_url: str, engine: Any, kind: str
) -> None:
    with engine.begin() as db:
        db.exec_driver_sql(f"ALTER TABLE task_status ALTER task_metadata TYPE {kind}")
    workspace = Workspace(PLAN, Engines(database_url), TRACKING_SCHEMA)
    with workspace.session("test") as session:
        notes = workspace.inspect(session).notes

        assert f"public.task_status.task_metadata: {kind}, nullable" in notes
        assert not any("lets nobody delete" in note for note in notes)
        session.run(
            "INSERT INTO task_status (task_type, status, resource_id) VALUES "
            "('exchange_rate_update', 'done', 1)"
        )
        assert dry_run.predict(session, workspace).account.total("migrated") == 1


def test_a_daily_row_is_found_by_both_parts_of_its_key(database_url: str) -> None:
    workspace = Workspace(PLAN, Engines(database_url), TRACKING_SCHEMA)
    with workspace.session("test") as session:
        session.run(
            "INSERT INTO daily_update_tracking (date, update_type, attempted) "
            "SELECT date '2024-01-01' + n / 3, (ARRAY['exchange_rates', 'etf_prices', "
            "'etf_prices_A,\"B'])[1 + n % 3], TRUE "
            "FROM generate_series(0, 29) n"
        )
        run_to_the_end_of_the_copy(workspace, session, chunk_size=4)
        session.run("UPDATE daily_update_tracking SET data_found = TRUE WHERE update_type LIKE '%B'")
        sync.apply_changes(session, workspace, workspace.reconcilers(session))

        assert session.rows(
            "SELECT update_type, status, count(*) FROM tracking.daily_update_tracking GROUP BY 1, "
            "2 ORDER BY 1"
        ) == [
            {"update_type": "etf_prices", "status": "FAILED", "count": 10},
            {"update_type": 'etf_prices_A,"B', "status": "COMPLETED", "count": 10},
            {"update_type": "exchange_rates", "status": "FAILED", "count": 10},
        ]
        assert account.take(session, workspace, workspace.stagings(session)).is_balanced
