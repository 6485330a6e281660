"""A tracking table in partitions, on a real server: its ids, its natural keys, and how old rows leave it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count, pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from conftest import MakeDatabase
from tasktrail import (
    BaseTaskTracking,
    ConfigurationError,
    Filter,
    NaturalKey,
    Status,
    TrackingOptions,
    bookkeeping,
    partitions,
    schema,
    statements,
    sweeps,
    tracker,
)
from tasktrail.engines import Engines
from tasktrail.library import library
from tasktrail.monitoring import listing
from tasktrail.partitioning import DAY_BITS, day_of, first_id
from tasktrail.registry import Domain
from tasktrail.retention import PartitionKeeper
from tasktrail.retry import NoRetry
from tasktrail.schema import v1, v5
from tasktrail.tracker import Added
from tests.rows import columns, count_rows, somebody_waits_for_a_lock
from tests.support import SCHEMA, OrderTracking, ParcelTracking, ParcelTrackingService
from tests.upkeep import Upkeep
from tests.waiting import until

PARCELS = Domain(name="parcel", model=ParcelTracking, service=ParcelTrackingService, schema=SCHEMA)
TABLE = ParcelTracking.__table__
OLD = 40
"""Age, in days, of rows that are past their retention of 30."""
_days = count(date(2000, 1, 1).toordinal())


@pytest.fixture
def upkeep(database_url: str) -> Iterator[Upkeep]:
    """Maintenance of the parcels."""
    upkeep = Upkeep(database_url, domains=[PARCELS])
    yield upkeep
    upkeep.engines.dispose()


def parcel(**fields: Any) -> dict[str, Any]:
    return {"day": date.fromordinal(next(_days)), "currency": "EUR", **fields}


def add(engine: Engine, **fields: Any) -> int:
    with engine.begin() as db:
        return tracker.create(db, ParcelTracking, parcel(**fields)).id


def scalar(engine: Engine, query: str, **parameters: Any) -> Any:
    with engine.connect() as db:
        return db.scalar(text(query), parameters)


def execute(engine: Engine, statement: str, **parameters: Any) -> None:
    with engine.begin() as db:
        db.execute(text(statement), parameters)


def today(engine: Engine) -> int:
    with engine.connect() as db:
        return partitions.today(db)


def days(engine: Engine) -> list[int]:
    """Return the days that have a partition, counted from today."""
    with engine.connect() as db:
        now = partitions.today(db)
        return [day_of(one.first) - now for one in partitions.partitions_of(db, ParcelTracking)]


def make_days(engine: Engine, *ago: int) -> None:
    """Make the partitions of days of the past."""
    with engine.begin() as db:
        now = partitions.today(db)
        for days_ago in ago:
            partitions.attach(db, TABLE, first_id(now - days_ago), first_id(now - days_ago + 1))


def add_old(engine: Engine, ago: int, rows: int = 3, status: str = "COMPLETED") -> list[int]:
    """Add rows as they were made so many days ago."""
    first = first_id(today(engine) - ago)
    query = text(
        "INSERT INTO tracking.parcel_tracking (id, day, currency, status, created_at, completed_at)"
        " SELECT :first + n, :day, 'C' || lpad(n::text, 2, '0'), state, moment,"
        "     CASE WHEN state NOT IN ('PENDING', 'PROCESSING') THEN moment END"
        " FROM generate_series(1, :rows) AS n, (SELECT now() - make_interval(days => :ago) AS moment,"
        "     CAST(:status AS varchar) AS state) AS old RETURNING id"
    )
    day = date.fromordinal(next(_days))
    with engine.begin() as db:
        values = {"first": first, "day": day, "status": status, "ago": ago, "rows": rows}
        return list(db.scalars(query, values))


def keys(engine: Engine) -> list[int]:
    with engine.connect() as db:
        return list(db.scalars(text("SELECT id FROM tracking.parcel_tracking_keys ORDER BY 1")))


def rows(engine: Engine) -> list[int]:
    with engine.connect() as db:
        return list(db.scalars(text("SELECT id FROM tracking.parcel_tracking ORDER BY 1")))


# Ids and partitions


def test_an_id_says_its_day_and_grows(engine: Engine) -> None:
    found = [add(engine) for _ in range(3)]

    assert found == sorted(found)
    assert {day_of(one) for one in found} == {today(engine)}
    assert max(found) < 2**53


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Midway"])
@pytest.mark.parametrize("model", [ParcelTracking, OrderTracking])
def test_the_day_of_an_id_is_that_of_its_creation_whatever_the_zone(
    engine: Engine, zone: str, model: Any
) -> None:
    with engine.begin() as db:
        db.execute(text(f"SET LOCAL timezone = '{zone}'"))
        added = tracker.create(db, model, parcel()).id

    created = columns(engine, added, model)["created_at"]
    expected = (created.astimezone(UTC).date() - date(1970, 1, 1)).days
    assert (day_of(added) == expected) == (model is ParcelTracking)


def test_maintenance_makes_a_week_ahead_once(engine: Engine, upkeep: Upkeep) -> None:
    before = days(engine)
    upkeep.prune()
    first = days(engine)
    upkeep.prune()

    assert (before, first) == ([], list(range(partitions.AHEAD + 1)))
    assert days(engine) == first


def test_the_leader_keeps_partitions_by_itself(engine: Engine, database_url: str) -> None:
    make_days(engine, OLD)
    add_old(engine, OLD)
    upkeep = Upkeep(database_url, domains=[PARCELS], maintenance_interval=0.02)
    with upkeep.running():
        until(lambda: days(engine) == list(range(partitions.AHEAD + 1)))


def test_two_who_make_partitions_at_once_make_them_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", 30)
    barrier = threading.Barrier(4)

    def make(_: int) -> int:
        with engine.begin() as db:
            barrier.wait(10)
            return len(partitions.make_ahead(db, ParcelTracking))

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(make, range(4)))

    assert sorted(made) == [0, 0, 0, partitions.AHEAD + 1]


def test_a_row_goes_to_the_partition_of_its_day(engine: Engine, upkeep: Upkeep) -> None:
    upkeep.prune()
    added = add(engine)

    name = scalar(
        engine, "SELECT tableoid::regclass::text FROM tracking.parcel_tracking WHERE id = :id", id=added
    )
    assert name == f"tracking.parcel_tracking_p{datetime.now(UTC):%Y%m%d}"


def test_a_job_is_taken_when_nobody_made_a_partition(engine: Engine, upkeep: Upkeep) -> None:
    added = add(engine)
    upkeep.prune()
    other = add(engine)

    where = "SELECT count(*) FROM tracking.parcel_tracking_default WHERE id IN (:one, :two)"
    assert scalar(engine, where, one=added, two=other) == 2
    assert days(engine) == list(range(1, partitions.AHEAD + 1))  # from tomorrow on there are partitions


def test_partitions_of_another_width_follow_on_those_that_are_there(engine: Engine) -> None:
    with engine.begin() as db:
        made = partitions.make_ahead(db, ParcelTracking)
        now = partitions.today(db)
        ParcelTracking.__tracking__ = TrackingOptions(domain="parcel", schema=SCHEMA, partition_days=30)
        try:
            more = partitions.make_ahead(db, ParcelTracking)
        finally:
            ParcelTracking.__tracking__ = ORIGINAL
        there = partitions.partitions_of(db, ParcelTracking)

    assert (len(made), all(one.end == other.first for one, other in pairwise(there))) == (
        partitions.AHEAD + 1,
        True,
    )
    assert day_of(there[-1].end) % 30 == 0 or not more
    assert there[0].first <= first_id(now)


ORIGINAL = ParcelTracking.__tracking__


def test_a_failed_row_has_its_group_in_a_partition(engine: Engine, upkeep: Upkeep) -> None:
    upkeep.prune()
    added = add(engine)
    with engine.begin() as db:
        fence = tracker.claim(db, ParcelTracking, added, celery_task_id="t", worker="w").fence
        tracker.fail(db, ParcelTracking, fence, NoRetry("no"), error="ValueError: 17 is wrong")

    assert columns(engine, added, ParcelTracking)["failure_group"] is not None


def test_partitions_have_the_indexes_and_constraints_of_the_table(engine: Engine, upkeep: Upkeep) -> None:
    upkeep.prune()
    query = """
        SELECT count(*) FROM pg_index AS parent
        WHERE parent.indrelid = 'tracking.parcel_tracking'::regclass
            AND (NOT parent.indisvalid OR (SELECT count(*) FROM pg_inherits WHERE inhparent = indexrelid)
                <> (SELECT count(*) FROM pg_inherits WHERE inhparent = parent.indrelid))"""

    assert scalar(engine, query) == 0
    with pytest.raises(IntegrityError, match="ck_parcel_status"):
        execute(
            engine,
            "INSERT INTO tracking.parcel_tracking (day, currency, status) VALUES (now(), 'EUR', 'LOST')",
        )


# Natural keys


def test_a_row_added_by_hand_cannot_evade_the_natural_key(engine: Engine, upkeep: Upkeep) -> None:
    upkeep.prune()
    fields = parcel()
    add(engine, **fields)
    insert = "INSERT INTO tracking.parcel_tracking (day, currency) VALUES (:day, :currency)"

    with pytest.raises(IntegrityError) as caught:
        execute(engine, insert, **fields)

    assert caught.value.orig.diag.constraint_name == "uq_parcel"
    assert len(rows(engine)) == 1
    execute(engine, "ALTER TABLE tracking.parcel_tracking DISABLE TRIGGER tasktrail_keys")
    execute(engine, insert, **fields)
    assert len(rows(engine)) == 2  # it is the trigger that refuses


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO tracking.parcel_tracking (day, currency) VALUES ('1999-1-1', 'A'), ('1999-1-1', 'A')",
        "UPDATE tracking.parcel_tracking SET day = '1998-01-01', currency = 'EUR'",
    ],
    ids=["insert", "update"],
)
def test_one_statement_cannot_double_a_key(engine: Engine, statement: str) -> None:
    add(engine), add(engine)
    before = rows(engine), keys(engine)

    with pytest.raises(IntegrityError) as caught:
        execute(engine, statement)

    assert caught.value.orig.diag.constraint_name == "uq_parcel"
    assert (rows(engine), keys(engine)) == before


def test_a_key_follows_its_row(engine: Engine) -> None:
    fields = parcel()
    there = add(engine, **fields)
    execute(engine, "UPDATE tracking.parcel_tracking SET currency = 'USD' WHERE id = :id", id=there)

    again = add(engine, **fields)
    with engine.begin() as db:
        moved = tracker.find(db, ParcelTracking, day=fields["day"], currency="USD")
    execute(engine, "DELETE FROM tracking.parcel_tracking WHERE id = :id", id=there)
    third = add(engine, **{**fields, "currency": "USD"})

    assert moved is not None
    assert moved.id == there
    assert keys(engine) == rows(engine) == [again, third]


def test_an_emptied_table_has_no_keys(engine: Engine) -> None:
    fields = parcel()
    add(engine, **fields)
    execute(engine, "TRUNCATE tracking.parcel_tracking")

    assert keys(engine) == []
    assert add(engine, **fields)


def test_of_many_who_enqueue_and_insert_one_key_one_row_is_made(engine: Engine, upkeep: Upkeep) -> None:
    """Half of them by hand, half of them as ``enqueue`` does; each of them ends, and all see the same row."""
    upkeep.prune()
    for _ in range(10):
        fields, barrier = parcel(), threading.Barrier(8)

        def run(number: int, fields: dict[str, Any] = fields, barrier: threading.Barrier = barrier) -> Any:
            with engine.begin() as db:
                barrier.wait(10)
                if number % 2:
                    return tracker.create(db, ParcelTracking, fields, on_duplicate="return").id
                try:
                    return db.scalar(
                        text(
                            "INSERT INTO tracking.parcel_tracking (day, currency) VALUES (:day, :currency)"
                            " RETURNING id"
                        ),
                        fields,
                    )
                except IntegrityError as error:
                    db.rollback()
                    return error.orig.diag.constraint_name

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(run, range(8)))

        assert len(set(found) - {"uq_parcel"}) == 1
    assert keys(engine) == rows(engine)
    assert len(rows(engine)) == 10


def test_who_enqueues_a_key_waits_for_whom_has_just_taken_it(engine: Engine) -> None:
    fields = parcel()

    def enqueue() -> Any:
        with engine.begin() as db:
            return tracker.create(db, ParcelTracking, fields, on_duplicate="return")

    for end in ("commit", "rollback"):
        fields = parcel()
        with ThreadPoolExecutor(1) as threads, engine.connect() as first:
            taken = tracker.create(first, ParcelTracking, fields).id
            second = threads.submit(enqueue)
            until(lambda: somebody_waits_for_a_lock(engine))
            getattr(first, end)()
            found = second.result(10)

        assert (found.id == taken, found.outcome) == (
            (True, Added.EXISTING) if end == "commit" else (False, Added.CREATED)
        )


def test_a_key_whose_row_is_gone_is_free(engine: Engine) -> None:
    """As that of a row that went with its partition is, until maintenance has forgotten it."""
    one, two, three = parcel(), parcel(), parcel()
    execute(
        engine,
        "INSERT INTO tracking.parcel_tracking_keys (id, day, currency)"
        " SELECT n, day, 'EUR' FROM unnest(CAST(:days AS date[])) WITH ORDINALITY AS gone (day, n)",
        days=[fields["day"] for fields in (one, two, three)],
    )

    first = add(engine, **one)
    with engine.begin() as db:
        second = tracker.create_many(db, ParcelTracking, [two, one])
    execute(
        engine, "INSERT INTO tracking.parcel_tracking (day, currency) VALUES (:day, 'EUR')", day=three["day"]
    )

    assert len(second) == 1
    assert first in rows(engine)
    assert keys(engine) == rows(engine)
    assert len(rows(engine)) == 3


def test_many_who_find_a_key_whose_row_is_gone_make_one_row(engine: Engine) -> None:
    for _ in range(10):
        fields, barrier = parcel(), threading.Barrier(8)
        insert = "INSERT INTO tracking.parcel_tracking_keys (id, day, currency) VALUES (1, :day, 'EUR')"
        execute(engine, insert, day=fields["day"])

        def run(_: int, fields: dict[str, Any] = fields, barrier: threading.Barrier = barrier) -> int:
            with engine.begin() as db:
                barrier.wait(10)
                return tracker.create(db, ParcelTracking, fields, on_duplicate="return").id

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(run, range(8)))) == 1
    assert keys(engine) == rows(engine)


@pytest.mark.parametrize("lend", ["pooled", "kept"])
def test_a_keyed_row_can_be_added_on_every_connection_the_tracker_takes(engine: Engine, lend: str) -> None:
    engines = Engines(engine.url.render_as_string(hide_password=False))
    details = {"amount": Decimal("1.25"), "tags": ["a", "b"], "details": {"n": [1]}, "urgent": None}
    fields = parcel(seen_at=datetime(2026, 1, 1, tzinfo=UTC), **details)
    with getattr(engines, lend)() as db:
        added = [tracker.create(db, ParcelTracking, fields, on_duplicate="return") for _ in range(2)]
    engines.dispose()

    row = columns(engine, added[0].id, ParcelTracking)
    assert {name: row[name] for name in fields} == fields
    assert [one.outcome for one in added] == [Added.CREATED, Added.EXISTING]
    assert added[0].id == added[1].id


def test_thousands_of_keyed_rows_are_added_in_batches_and_once(engine: Engine) -> None:
    fields = [parcel(payload=str(number)) for number in range(1203)]
    with engine.begin() as db:
        first = tracker.create_many(db, ParcelTracking, fields)
        second = tracker.create_many(db, ParcelTracking, [*fields, parcel(payload="new")])

    assert (len(first), len(second)) == (1203, 1)
    assert keys(engine) == rows(engine)
    assert scalar(engine, "SELECT count(DISTINCT payload) FROM tracking.parcel_tracking") == 1204


# Plans


def plan(engine: Engine, statement: Any, values: dict[str, Any], *, generic: bool) -> str:
    made = statement.compile(dialect=PGDialect_psycopg())
    compiled = str(made)
    with engine.begin() as db:
        if not generic:
            explain = f"EXPLAIN (COSTS OFF) {compiled}"
            return "\n".join(db.exec_driver_sql(explain, {**made.params, **values}).scalars())
        for at, name in enumerate(values, 1):
            compiled = compiled.replace(f"%({name})s", f"${at}")
        db.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        db.exec_driver_sql(f"PREPARE one AS {compiled}")
        arguments = ", ".join(map(repr, values.values()))
        return "\n".join(db.exec_driver_sql(f"EXPLAIN (COSTS OFF) EXECUTE one ({arguments})").scalars())


@pytest.mark.parametrize("generic", [False, True])
def test_a_claim_touches_one_partition(engine: Engine, upkeep: Upkeep, *, generic: bool) -> None:
    upkeep.prune()
    values = {"_row_id": add(engine), "_new_celery_task_id": "t", "_new_worker": "w"}

    found = plan(engine, statements.claim_if_pending_and_due(ParcelTracking), values, generic=generic)

    scans = [line for line in found.splitlines() if "Scan" in line and "Bitmap Index" not in line]
    assert len(scans) == 1, found
    assert f"parcel_tracking_p{datetime.now(UTC):%Y%m%d}" in scans[0], found


def test_a_batch_that_is_picked_by_state_is_written_by_its_ids(engine: Engine, upkeep: Upkeep) -> None:
    upkeep.prune()
    with engine.begin() as db:
        tracker.create_many(db, ParcelTracking, [parcel() for _ in range(2000)])
    execute(engine, "ANALYZE tracking.parcel_tracking")

    found = plan(
        engine,
        sweeps.take_due_for_dispatch(ParcelTracking),
        {"_batch": 10, "_redispatch_after": 60.0},
        generic=False,
    )

    partition = f"parcel_tracking_p{datetime.now(UTC):%Y%m%d}"
    assert "Nested Loop" in found, found
    assert f"Index Scan using {partition}_pkey" in found, found
    assert f"Seq Scan on {partition}" not in found, found


# Reading across days


def test_a_search_passes_the_days_in_which_nothing_is_found(
    engine: Engine, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of two days are 2 ** 36 apart; a stretch never holds more rows than it is long."""
    monkeypatch.setattr(listing, "FIRST_STRETCH", 2)
    make_days(engine, 20, 10, 5)
    found = [one for ago in (20, 10, 5) for one in add_old(engine, ago, rows=3, status="FAILED")]
    execute(engine, "UPDATE tracking.parcel_tracking SET error_message = 'ValueError: rare' WHERE id = :id",
            id=found[0])  # fmt: skip
    asked: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))

    with engine.begin() as db:
        page = listing.page(db, PARCELS, Filter(error="rare"))

    assert [row.id for row in page.rows] == [found[0]]
    assert page.next is None
    assert len(asked) < 20


# Retention


def test_a_partition_whose_rows_are_past_their_retention_is_dropped(engine: Engine, upkeep: Upkeep) -> None:
    make_days(engine, OLD, 31, 30)
    for ago in (OLD, 31, 30):
        add_old(engine, ago)
    bookkeeping.roll_up(engine, PARCELS)

    pruned = upkeep.prune()

    assert pruned == 6
    assert [day for day in days(engine) if day < 0] == [-30]
    assert keys(engine) == rows(engine)
    assert len(rows(engine)) == 3
    kept_from = scalar(
        engine, "SELECT kept_from FROM tracking.tasktrail_rollup_state WHERE domain = 'parcel'"
    )
    # Rows younger than that are all there, so counts and history need not look for any that are older.
    assert abs(datetime.now(UTC) - timedelta(days=31) - kept_from) < timedelta(minutes=5)


def test_rows_wait_for_their_partition(engine: Engine, upkeep: Upkeep) -> None:
    """None of them is deleted one by one while its partition is not past its time as a whole."""
    make_days(engine, 30)
    old = add_old(engine, 30)
    execute(engine, "UPDATE tracking.parcel_tracking SET created_at = created_at - interval '1 h',"
            " completed_at = completed_at - interval '1 h'")  # fmt: skip

    assert upkeep.prune() == 0
    assert rows(engine) == old


def test_rows_wait_for_those_that_ended_after_midnight(engine: Engine, upkeep: Upkeep) -> None:
    """Or hardly a partition would ever go as a whole."""
    make_days(engine, 31)
    old = add_old(engine, 31)
    late = "UPDATE tracking.parcel_tracking SET completed_at = now() - interval '30 d' + interval '5 min'"
    execute(engine, f"{late} WHERE id = :id", id=old[0])

    waiting = upkeep.prune(), rows(engine)
    execute(engine, "UPDATE tracking.parcel_tracking SET completed_at = completed_at - interval '6 min'")

    assert waiting == (0, old)
    assert (upkeep.prune(), -31 in days(engine)) == (3, False)


@pytest.mark.parametrize("status", ["PENDING", "PROCESSING"])
def test_a_partition_with_one_unfinished_row_is_pruned_row_by_row(
    engine: Engine, upkeep: Upkeep, status: str
) -> None:
    make_days(engine, OLD)
    old = add_old(engine, OLD)
    execute(
        engine,
        "UPDATE tracking.parcel_tracking SET status = :status, completed_at = NULL WHERE id = :id",
        status=status,
        id=old[1],
    )

    assert upkeep.prune() == 2
    assert -OLD in days(engine)
    assert keys(engine) == rows(engine) == [old[1]]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tracking.parcel_tracking SET completed_at = now() WHERE id = :id",
        "UPDATE tracking.parcel_tracking SET completed_at = NULL WHERE id = :id",
        "UPDATE tracking.parcel_tracking SET created_at = now() WHERE id = :id",
        "INSERT INTO tracking.tasktrail_prerequisites VALUES ('job', 1, 'parcel', :id, 'cancel', NULL)",
    ],
    ids=["ended late", "without an end", "made late", "awaited"],
)
def test_a_partition_stays_for_one_row_that_pruning_would_leave(
    engine: Engine, upkeep: Upkeep, change: str
) -> None:
    make_days(engine, OLD)
    old = add_old(engine, OLD)
    execute(engine, change, id=old[0])

    upkeep.prune()

    assert -OLD in days(engine)
    assert rows(engine) == [old[0]]


def test_a_migration_that_holds_the_domain_keeps_its_partitions(engine: Engine, upkeep: Upkeep) -> None:
    make_days(engine, OLD)
    old = add_old(engine, OLD)
    execute(
        engine,
        "INSERT INTO tracking.tasktrail_migrations (name, phase, is_holding, domains)"
        " VALUES ('m', 'parallel', true, ARRAY['parcel'])",
    )

    assert upkeep.prune() == 0
    assert rows(engine) == old


def test_what_rows_had_waited_for_goes_with_their_partition(engine: Engine, upkeep: Upkeep) -> None:
    make_days(engine, OLD)
    old, new = add_old(engine, OLD), add(engine)
    needs = library(SCHEMA).prerequisites
    edge = {"needs_domain": "job", "needs_id": 1, "if_unmet": "wait", "domain": "parcel"}
    with engine.begin() as db:
        db.execute(needs.insert(), [{**edge, "tracking_id": one} for one in (*old, new)])

    upkeep.prune()

    with engine.connect() as db:
        assert list(db.scalars(sa.select(needs.c.tracking_id))) == [new]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_row_that_is_revived_while_its_partition_is_looked_at_is_never_lost(
    engine: Engine, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Who writes to the partition is waited for; what he wrote decides."""
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", 30)
    make_days(engine, OLD)
    old = add_old(engine, OLD, status="FAILED")

    with ThreadPoolExecutor(1) as threads, engine.connect() as db:
        tracker.revive(db, ParcelTracking, old[0])
        dropping = threads.submit(upkeep.prune)
        until(lambda: somebody_waits_for_a_lock(engine))
        getattr(db, end)()
        dropping.result(20)

    assert (old[0] in rows(engine)) == (end == "commit")
    if end == "commit":
        assert columns(engine, old[0], ParcelTracking)["status"] == Status.PENDING


def test_a_lock_that_cannot_be_had_leaves_all_for_the_next_round(engine: Engine, upkeep: Upkeep) -> None:
    make_days(engine, OLD)
    old = add_old(engine, OLD)
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM tracking.parcel_tracking"))
        held = upkeep.prune()
        there = rows(engine)
    freed = upkeep.prune()

    assert (held, there, freed) == (0, old, 3)


SCRIPT = """
import os, signal, sys
from sqlalchemy import event
from tests.integration.test_partitions import PARCELS
from tasktrail.engines import Engines
from tasktrail.retention import PartitionKeeper

url, moment, beginning = sys.argv[1:]
engines = Engines(url)

def die(*arguments):
    if beginning in " ".join(arguments[2].split()):
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(engines.maintenance, f"{moment}_cursor_execute", die)
PartitionKeeper(engines).keep(PARCELS, 30 * 86400)
"""


@pytest.mark.parametrize(
    ("moment", "statement", "goes"),
    [
        ("after", "UPDATE tracking.tasktrail_rollup_state", False),
        ("after", "DROP TABLE", False),
        ("before", "DELETE FROM tracking.parcel_tracking_keys", True),
    ],
)
def test_who_is_killed_has_dropped_a_partition_wholly_or_not_at_all(
    engine: Engine, database_url: str, upkeep: Upkeep, moment: str, statement: str, *, goes: bool
) -> None:
    make_days(engine, OLD)
    old = add_old(engine, OLD)
    bookkeeping.roll_up(engine, PARCELS)
    kept_from = "SELECT kept_from IS NOT NULL FROM tracking.tasktrail_rollup_state WHERE domain = 'parcel'"

    killed = subprocess.run([sys.executable, "-c", SCRIPT, database_url, moment, statement], check=False)

    assert killed.returncode == -signal.SIGKILL
    until(lambda: scalar(engine, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                                 " AND state <> 'idle' AND pid <> pg_backend_pid()") == 0)  # fmt: skip
    assert (rows(engine), scalar(engine, kept_from)) == (([], True) if goes else (old, False))
    assert upkeep.prune() == (0 if goes else 3)
    assert (rows(engine), keys(engine)) == ([], [])


def test_rows_of_the_default_partition_are_pruned_one_by_one(engine: Engine, upkeep: Upkeep) -> None:
    add_old(engine, OLD)
    young = add_old(engine, 5)

    assert upkeep.prune() == 3
    assert keys(engine) == rows(engine) == young


def test_a_role_that_does_not_own_the_table_says_so_and_prunes_row_by_row(
    engine: Engine, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_days(engine, OLD)
    add_old(engine, OLD)
    clerk = f"clerk_{engine.url.database}"
    for statement in (
        f"CREATE ROLE {clerk}",
        f"GRANT USAGE ON SCHEMA tracking TO {clerk}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA tracking TO {clerk}",
    ):
        execute(engine, statement)
    url = make_url(database_url).update_query_dict({"options": f"-c role={clerk}"})
    upkeep = Upkeep(url.render_as_string(hide_password=False), domains=[PARCELS])

    pruned = upkeep.prune()
    upkeep.engines.dispose()

    assert (pruned, rows(engine), keys(engine)) == (3, [], [])
    assert "the partitions of parcel: permission denied" in caplog.text


# The table, by models and by migrations


class Base(DeclarativeBase):
    """The tables of this file."""


class CrateTracking(BaseTaskTracking, Base):
    """A partitioned domain without a natural key, in no schema."""

    __tablename__ = "crate_tracking"
    __tracking__ = TrackingOptions(domain="crate", partition_days=7)

    weight: Mapped[int]


class BoxTracking(BaseTaskTracking, Base):
    """A partitioned domain whose mapping gives values to columns."""

    __tablename__ = "box_tracking"
    __tracking__ = TrackingOptions(
        domain="box", natural_key=NaturalKey(("Label",), "uq_box"), partition_days=1
    )

    Label: Mapped[str]
    size: Mapped[int] = mapped_column(default=3)
    colour: Mapped[str] = mapped_column(default=lambda: "red")


def test_values_that_the_mapping_gives_are_written(make_database: MakeDatabase) -> None:
    engine = create_engine(make_database())
    with engine.begin() as db:
        Base.metadata.create_all(db)
        one = tracker.create(db, BoxTracking, {"Label": "a"}).id
        two, three = tracker.create_many(
            db, BoxTracking, [{"Label": label, "size": 5} for label in ("a", "b", "c")]
        )
        again = tracker.find(db, BoxTracking, Label="a")
    found = [columns(engine, one, BoxTracking), *(columns(engine, n.id, BoxTracking) for n in (two, three))]
    engine.dispose()

    assert [(row["size"], row["colour"]) for row in found] == [(3, "red"), (5, "red"), (5, "red")]
    assert again is not None
    assert again.id == one


class SackTracking(BaseTaskTracking, Base):
    """A partitioned domain with a default that only the database can work out."""

    __tablename__ = "sack_tracking"
    __tracking__ = TrackingOptions(
        domain="sack", natural_key=NaturalKey(("label",), "uq_sack"), partition_days=1
    )

    label: Mapped[str]
    packed_on: Mapped[date] = mapped_column(default=sa.func.current_date())


def test_a_default_in_sql_has_to_be_the_tables_own(make_database: MakeDatabase) -> None:
    engine = create_engine(make_database())
    with engine.begin() as db:
        Base.metadata.create_all(db)
        with pytest.raises(ConfigurationError, match="packed_on: give it a server_default"):
            tracker.create(db, SackTracking, {"label": "a"})
    engine.dispose()


def upgrade(op: Operations) -> None:
    op.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    v5.create_tracking_table(
        op,
        "parcel_tracking",
        domain="parcel",
        schema=SCHEMA,
        partitioned=True,
        items=[
            sa.Column("day", sa.Date, nullable=False),
            sa.Column("currency", sa.String(3), nullable=False),
            sa.Column("tags", ARRAY(sa.String(5))),
            sa.Column("done", sa.Integer, server_default=sa.text("0"), nullable=False),
            sa.Column("total", sa.Integer, server_default=sa.text("0"), nullable=False),
            sa.Column("amount", sa.Numeric(10, 2)),
            sa.Column("seen_at", sa.DateTime(timezone=True)),
            sa.Column("details", JSONB),
            sa.Column("urgent", sa.Boolean),
            sa.Column("payload", sa.String(100), server_default="", nullable=False),
            sa.UniqueConstraint("day", "currency", name="uq_parcel"),
        ],
    )
    v5.create_tracking_table(
        op,
        "crate_tracking",
        domain="crate",
        partitioned=True,
        items=[sa.Column("weight", sa.Integer, nullable=False)],
    )


def downgrade(op: Operations) -> None:
    v1.drop_partitioned_table(op, "crate_tracking")
    v1.drop_partitioned_table(op, "parcel_tracking", schema=SCHEMA)


DESCRIPTIONS = {
    "columns": """
        SELECT table_name, ordinal_position, column_name, data_type, character_maximum_length, is_nullable,
               column_default, is_identity, generation_expression
        FROM information_schema.columns WHERE table_name ~ '^(parcel|crate)_' ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid::regclass::text ~ '^(tracking.)?(parcel|crate)_' ORDER BY 1, 2""",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE tablename ~ '^(parcel|crate)_' ORDER BY 1",
    "tables": """
        SELECT relname, relkind::text, pg_get_expr(relpartbound, oid), pg_get_partkeydef(oid) FROM pg_class
        WHERE relname ~ '^(parcel|crate)_' ORDER BY 1""",
    "triggers": """
        SELECT pg_get_triggerdef(oid), pg_get_functiondef(tgfoid) FROM pg_trigger
        WHERE tgrelid::regclass::text ~ '^(tracking.)?(parcel|crate)_' ORDER BY 1""",
}


def described(db: Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {what: [tuple(row) for row in db.execute(text(sql))] for what, sql in DESCRIPTIONS.items()}


def test_models_and_migrations_make_the_same_partitioned_table(make_database: MakeDatabase) -> None:
    found = []
    for make in ("models", "migration"):
        engine = create_engine(make_database())
        with engine.begin() as db:
            if make == "models":
                db.execute(text(f"CREATE SCHEMA {SCHEMA}"))
                TABLE.create(db)
                Base.metadata.create_all(db)
            else:
                upgrade(Operations(MigrationContext.configure(db)))
            found.append(described(db))
            if make == "models":
                TABLE.drop(db)
                Base.metadata.drop_all(db)
            else:
                downgrade(Operations(MigrationContext.configure(db)))
            left = described(db)
            functions = db.scalar(text("SELECT count(*) FROM pg_proc WHERE proname LIKE '%keep_keys'"))
        engine.dispose()

        assert (set(map(tuple, left.values())), functions) == ({()}, 0)

    assert all(found[0].values())
    assert found[0] == found[1]


def test_what_is_missing_is_created_with_its_partitions(make_database: MakeDatabase) -> None:
    engine = create_engine(make_database())
    crates = Domain(name="crate", model=CrateTracking, service=object)
    with engine.begin() as db:
        first = schema.create_missing(db, [crates], schema=None)
        again = schema.create_missing(db, [crates], schema=None)
        there = partitions.partitions_of(db, CrateTracking)
        now = partitions.today(db)
        problems = schema.problems(db, [crates], schema=None)
    engine.dispose()

    assert first[-2:] == [one.name.split('"')[-2] for one in there]
    assert (again, problems) == ([], [])
    assert [day_of(one.end) - day_of(one.first) for one in there] == [7, 7]
    assert there[0].first <= now << DAY_BITS < there[1].end


def test_a_table_in_one_piece_does_not_pass_for_a_partitioned_one(make_database: MakeDatabase) -> None:
    engine = create_engine(make_database())
    crates = Domain(name="crate", model=CrateTracking, service=object)
    with engine.begin() as db:
        schema.create_missing(db, [crates], schema=None)
        db.execute(text("DROP TABLE crate_tracking"))
        db.execute(text("CREATE TABLE crate_tracking AS SELECT 1 AS id"))
        problems = schema.problems(db, [crates], schema=None)
    engine.dispose()

    assert problems[0] == "crate_tracking is not partitioned, unlike its model"


@pytest.mark.parametrize("partition_days", [0, -1, 367, 1.5, True])
def test_a_width_that_is_no_number_of_days_is_refused(partition_days: Any) -> None:
    with pytest.raises(ConfigurationError, match="partition_days is"):
        refused(TrackingOptions(domain="t", partition_days=partition_days))


def refused(options: TrackingOptions, name: str = "t") -> None:
    class Own(DeclarativeBase):
        """Tables that are refused."""

    class Refused(BaseTaskTracking, Own):
        __tablename__ = name
        __tracking__ = options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("t" * 60, {}, "has at most"),
        ("t", {"extra": (sa.UniqueConstraint("status", name="uq_more"),)}, "uq_more cannot be UNIQUE"),
        ("t", {"extra": (sa.Index("ix_more", "status", unique=True),)}, "ix_more cannot be UNIQUE"),
    ],
)
def test_what_a_partitioned_table_cannot_be_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    tracking = TrackingOptions(
        domain="t", natural_key=NaturalKey(("status",), "uq"), partition_days=1, **options
    )
    with pytest.raises(ConfigurationError, match=message):
        refused(tracking, name)


def test_a_keeper_that_has_nothing_to_drop_tidies_once(engine: Engine, upkeep: Upkeep) -> None:
    keeper = PartitionKeeper(upkeep.engines)
    execute(engine, "INSERT INTO tracking.parcel_tracking_keys VALUES (1, '1999-01-01', 'EUR')")

    assert keeper.keep(PARCELS, 86_400.0) == (0, True)
    assert keys(engine) == []
    assert count_rows(engine, ParcelTracking) == 0
