"""Counters of events that are too rare to be worth a row each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from tasktrail import counters
from tests.support import SCHEMA


def read(engine: Engine) -> dict[tuple[str, str], int]:
    with engine.connect() as db:
        return counters.read(db, SCHEMA)


def test_a_counter_starts_at_its_first_event_and_adds_up_per_domain_and_name(engine: Engine) -> None:
    before = read(engine)
    with engine.begin() as db:
        counters.add(db, SCHEMA, "job", counters.STALE_WRITES)
        counters.add(db, SCHEMA, "job", counters.STALE_WRITES, 4)
        counters.add(db, SCHEMA, "job", counters.LEASE_EXPIRIES, 7)
        counters.add(db, SCHEMA, "order", counters.STALE_WRITES)

    assert before == {}
    assert read(engine) == {
        ("job", "stale_writes"): 5,
        ("job", "lease_expiries"): 7,
        ("order", "stale_writes"): 1,
    }


def test_what_is_rolled_back_was_not_counted(engine: Engine) -> None:
    with Session(engine) as db:
        counters.add(db, SCHEMA, "job", counters.STALE_WRITES)
        db.rollback()

    assert read(engine) == {}


def test_events_that_happen_at_once_are_all_counted(engine: Engine) -> None:
    def count(_: int) -> None:
        with engine.begin() as db:
            counters.add(db, SCHEMA, "job", counters.STALE_WRITES)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(80)))

    assert read(engine) == {("job", "stale_writes"): 80}


def test_a_counter_says_when_it_last_counted(engine: Engine) -> None:
    moments = []
    for _ in range(2):
        with engine.begin() as db:
            counters.add(db, SCHEMA, "job", counters.STALE_WRITES)
        with engine.begin() as db:
            moments.append(db.scalar(text("SELECT updated_at FROM tracking.tasktrail_counters")))

    assert moments[0] < moments[1]


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_the_counters_are_where_the_application_has_put_them(database_url: str, schema: str | None) -> None:
    engine = create_engine(database_url, connect_args={"options": f"-c search_path={SCHEMA}"})
    with engine.begin() as db:
        counters.add(db, schema, "job", counters.STALE_WRITES)
        assert counters.read(db, schema) == {("job", "stale_writes"): 1}
    engine.dispose()
