"""Made-up legacy rows: how many, how dirty, the same for the same seed, never on top of others unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from apps.portfolio.tests.legacy.judge import judge
from sqlalchemy import Engine, create_engine, text

from portfolio.database import upgrade
from portfolio.legacy.dirt import DAILY_DIRT, ETF_UPDATE_DIRT, TASK_DIRT, fitting
from portfolio.legacy.generate import Generated, LegacyTableNotEmpty, LegacyTablesMissing, generate
from portfolio.legacy.history import ETF_IDS
from portfolio.rates.calendar import why_nothing_is_published
from tasktrail import InvalidField
from tasktrail.migration.plan import Mapped

UNTIL = date(2026, 10, 30)
TABLES = {"task_status": "id", "etf_updates": "id", "daily_update_tracking": "date, update_type"}
KINDS = {"task_status": TASK_DIRT, "etf_updates": ETF_UPDATE_DIRT, "daily_update_tracking": DAILY_DIRT}


def fill(engine: Engine, **changed: Any) -> Generated:
    return generate(engine, **{"rows": 5000, "dirty": 0.1, "seed": 7, "until": UNTIL, **changed})


def rows_of(engine: Engine, table: str) -> list[dict[str, Any]]:
    """Read a table the way a migration does: JSON as text; but times that Python cannot hold as NULL."""
    read = {
        "task_metadata": "task_metadata::text AS task_metadata",
        "updated_at": "nullif(updated_at, 'infinity') AS updated_at",
    }
    with engine.connect() as db:
        names = list(db.execute(text(f"SELECT * FROM {table} LIMIT 0")).keys())
        columns = ", ".join(read.get(name, name) for name in names)
        rows = db.execute(text(f"SELECT {columns} FROM {table} ORDER BY {TABLES[table]}"))
        return [dict(row) for row in rows.mappings()]


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as db:
        return {table: db.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in TABLES}


@pytest.fixture
def second_engine(make_database: Any, portfolio_template: str) -> Iterator[Engine]:
    engine = create_engine(make_database(portfolio_template))
    yield engine
    engine.dispose()


def test_as_many_rows_as_were_asked_for_are_there_and_reported(engine: Engine) -> None:
    told: list[int] = []
    made = fill(engine, report=told.append)

    assert made.total == sum(told) == 5000
    assert counts(engine) == made.rows
    assert sum(kinds.total() for kinds in made.dirty.values()) == 500


def test_the_same_seed_makes_the_same_rows_and_another_one_others(
    engine: Engine, second_engine: Engine
) -> None:
    fill(engine)
    fill(second_engine)
    same = [rows_of(engine, table) == rows_of(second_engine, table) for table in TABLES]
    with second_engine.begin() as db:
        db.execute(text("TRUNCATE task_status, etf_updates, daily_update_tracking RESTART IDENTITY"))
    fill(second_engine, seed=8)

    assert same == [True] * 3
    assert [rows_of(engine, table) == rows_of(second_engine, table) for table in TABLES] == [False] * 3


def test_every_kind_of_dirt_that_the_tables_let_in_is_there(engine: Engine) -> None:
    made = fill(engine, dirty=0.2)

    for table, kinds in KINDS.items():
        assert set(made.dirty[table]) == {kind.name for kind in fitting(kinds, ())}


def test_looser_tables_let_in_the_dirt_that_needs_them(engine: Engine) -> None:
    with engine.begin() as db:
        db.execute(text("ALTER TABLE task_status ALTER task_metadata TYPE text"))
        db.execute(text("ALTER TABLE etf_updates DROP CONSTRAINT etf_updates_etf_id_fkey"))
        db.execute(text("ALTER TABLE etf_updates ALTER created_at DROP NOT NULL"))
    made = fill(engine, dirty=0.2)

    for table, kinds in KINDS.items():
        assert set(made.dirty[table]) == {kind.name for kind in kinds}


def test_a_json_column_lets_in_what_jsonb_keeps_out(engine: Engine) -> None:
    with engine.begin() as db:
        db.execute(text("ALTER TABLE task_status ALTER task_metadata TYPE json"))
    made = fill(engine, dirty=0.2)

    assert {"NUL", "lone surrogate"} <= set(made.dirty["task_status"])
    assert {"NaN", "bad JSON"} & set(made.dirty["task_status"]) == set()


def dispositions(engine: Engine, table: str) -> Counter[str]:
    """Count what the twins say; a row of this generator has only ETFs that are there."""
    found: Counter[str] = Counter()
    for row in rows_of(engine, table):
        given = {**row, "etf_id": "MTUM"} if row.get("etf_id") in ETF_IDS else row
        made = judge(table, given)
        found["migrated" if isinstance(made, Mapped) else made.disposition] += 1
    return found


def test_clean_rows_are_all_migrated_or_archived(engine: Engine) -> None:
    fill(engine, dirty=0)
    found = {table: dispositions(engine, table) for table in TABLES}

    assert all("quarantined" not in kinds for kinds in found.values())
    assert found["task_status"]["archived"] > 0
    assert found["task_status"]["migrated"] > 1000


def test_dirty_rows_are_partly_quarantined(engine: Engine) -> None:
    made = fill(engine)

    for table in TABLES:
        quarantined = dispositions(engine, table)["quarantined"]

        assert 0 < quarantined < made.dirty[table].total()


def test_rates_are_of_days_on_which_the_ecb_published(engine: Engine) -> None:
    fill(engine, dirty=0)
    with engine.connect() as db:
        days = db.execute(
            text("SELECT DISTINCT (task_metadata->>'date')::date FROM task_status WHERE task_type LIKE 'ex%'")
        ).scalars()
        found = list(days)

    assert [day for day in found if why_nothing_is_published(day)] == []
    assert max(found) == UNTIL


def test_rows_on_top_of_others_need_append(engine: Engine) -> None:
    fill(engine)
    before = counts(engine)
    with pytest.raises(LegacyTableNotEmpty, match="task_status holds rows already; --append"):
        fill(engine)
    unchanged = counts(engine) == before
    made = fill(engine, seed=9, append=True)

    assert unchanged
    assert counts(engine) == {table: before[table] + made.rows[table] for table in TABLES}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rows": 0}, "rows"),
        ({"dirty": 1.1}, "dirty"),
        ({"dirty": float("nan")}, "dirty"),
        ({"until": date(1999, 1, 3)}, "until"),
    ],
)
def test_what_makes_no_sense_is_refused_and_adds_nothing(
    engine: Engine, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidField, match=message):
        fill(engine, **changed)

    assert counts(engine) == dict.fromkeys(TABLES, 0)


def test_one_row_is_enough(engine: Engine) -> None:
    assert fill(engine, rows=1, dirty=1).total == 1


def test_missing_tables_are_named(bare_engine: Engine) -> None:
    with pytest.raises(LegacyTablesMissing, match="task_status, etf_updates, daily_update_tracking"):
        fill(bare_engine)


def test_a_failure_leaves_nothing_behind(engine: Engine) -> None:
    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(engine, report=fail)

    assert counts(engine) == dict.fromkeys(TABLES, 0)


def test_revision_0001_alone_is_enough(bare_engine: Engine) -> None:
    upgrade(bare_engine, "0001")

    assert fill(bare_engine, rows=100).total == 100
