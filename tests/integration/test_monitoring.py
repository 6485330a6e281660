"""The read model says what the rows say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, Text, Uuid, bindparam, literal_column, select, text
from sqlalchemy.exc import InternalError

from tasktrail import (
    Filter,
    InvalidField,
    ReadTimeout,
    RetryPolicy,
    Status,
    TrackingNotFound,
    bookkeeping,
)
from tasktrail.fingerprints import group_of, group_text
from tasktrail.monitoring import listing, queries
from tests.rows import add_job, add_job_in, claim
from tests.support import SCHEMA
from tests.upkeep import all_domains, shift

JOBS, _, ORDERS = all_domains(RetryPolicy())
TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=60),
    st.text("aF0-9:'\"`-+.,xZT _\n", max_size=60),
    st.from_regex(r"[A-Z][a-z]*Error[0-9]?: [a-f0-9'\"` .:+-]{0,40}", fullmatch=True),
)


@pytest.fixture
def reader(engine: Engine) -> Iterator[Connection]:
    """A connection for looking at a fingerprint again and again."""
    with engine.connect() as db:
        yield db


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(message=TEXTS)
def test_python_and_postgresql_find_the_same_group(reader: Connection, message: str) -> None:
    rows = select(bindparam("message", message, type_=Text()).label("error")).subquery("rows")
    group = literal_column(group_text("rows.error"), Uuid())
    found = reader.execute(select(group).select_from(rows)).scalar_one()

    assert found.hex == group_of(message)


def one_of_each(engine: Engine) -> dict[Status, int]:
    return {status: add_job_in(engine, status) for status in Status}


def test_rows_are_counted_by_state(engine: Engine) -> None:
    one_of_each(engine)
    add_job_in(engine, Status.FAILED)
    add_job(engine, next_attempt_at=None)

    with queries.reading(engine) as db:
        found = queries.counts(db, JOBS)

    assert found.by_state == dict.fromkeys(Status, 1) | {Status.PENDING: 2, Status.FAILED: 2}
    assert (found.held, found.due, found.total) == (1, 1, 7)


@pytest.mark.parametrize("period", list(queries.Period))
def test_history_says_what_ended_and_how(engine: Engine, period: queries.Period) -> None:
    ids = one_of_each(engine)
    shift(engine, -10, "started_at", "next_attempt_at", ids=[ids[Status.COMPLETED]])
    shift(engine, -2, "next_attempt_at", ids=[ids[Status.COMPLETED]])

    with queries.reading(engine) as db:
        # the newest second lies behind the moment at which the transaction began
        window = queries.Window.of(period, queries.server_time(db) + timedelta(seconds=1))
        found = queries.history(db, JOBS, window)

    assert (found.created, found.completed, found.failed, found.cancelled) == (5, 1, 1, 1)
    assert found.success_rate == 0.5
    assert found.completion_rate == 3 / 5
    assert found.running.count == 2
    assert found.running.p99 == pytest.approx(10, rel=0.1)
    assert found.waiting.p99 == pytest.approx(2, rel=0.1)
    assert (found.retries.ended, found.retries.retried) == (2, 0)
    assert found.retries.distribution == ((0, 1), (1, 1))
    assert len(found.bars) == len(list(window.starts()))


def test_an_empty_domain_has_no_rates(engine: Engine) -> None:
    with queries.reading(engine) as db:
        window = queries.Window.of("1h", queries.server_time(db))
        found = queries.history(db, ORDERS, window)

        assert queries.oldest_pending(db, ORDERS) is None

    assert (found.success_rate, found.completion_rate, found.running.p50) == (None, None, None)


def test_an_unknown_period_is_refused(engine: Engine) -> None:
    with queries.reading(engine) as db, pytest.raises(InvalidField, match="period"):
        queries.Window.of("2y", queries.server_time(db))


def test_late_rows_are_found(engine: Engine) -> None:
    due, running, fresh = add_job(engine), add_job(engine), add_job(engine)
    claim(engine, running)
    shift(engine, -100, "next_attempt_at", "heartbeat_at", ids=[due, running])

    with queries.reading(engine) as db:
        oldest = queries.oldest_pending(db, JOBS)
        stuck = queries.stuck(db, JOBS, lease=60)
        overdue = queries.overdue(db, JOBS, bound=60)

    assert oldest is not None
    assert (oldest.id, oldest.seconds >= 100) == (due, True)
    assert [row.id for row in stuck.rows] == [running]
    assert [row.id for row in overdue.rows] == [due]
    assert fresh not in {due, running}


def test_failures_are_grouped_and_each_group_can_be_listed(engine: Engine) -> None:
    ids = [add_job_in(engine, Status.FAILED) for _ in range(3)]
    with engine.begin() as db:
        for job, error in zip(ids, ("E: row 1", "E: row 2", "F: row 1"), strict=True):
            db.execute(
                text("UPDATE tracking.job_tracking SET error_message = :e WHERE id = :i"),
                {"e": error, "i": job},
            )

    with queries.reading(engine) as db:
        window = queries.Window.of("1h", queries.server_time(db) + timedelta(seconds=1))
        found = queries.failures(db, JOBS, window)
        listed = queries.page(db, JOBS, Filter(), group=group_of("E: row 5"))

    assert [(group.fingerprint, group.rows, sum(group.bars)) for group in found.groups] == [
        ("E: row <n>", 2, 2),
        ("F: row <n>", 1, 1),
    ]
    assert found.groups[0].example_id == ids[1]
    assert [row.id for row in listed.rows] == [ids[1], ids[0]]


@pytest.mark.parametrize("group", ["", "xyz", "0" * 31, "'; DROP TABLE x; --"])
def test_what_is_no_group_is_refused(group: str) -> None:
    with pytest.raises(InvalidField, match="group"):
        queries.in_group(JOBS, group)


def test_pages_hold_each_row_once(engine: Engine) -> None:
    ids = [add_job(engine) for _ in range(7)]
    seen, after = [], None

    with queries.reading(engine) as db:
        while True:
            found = queries.page(db, JOBS, Filter(), after=after, limit=3, most=5)
            seen += [row.id for row in found.rows]
            if (after := found.next) is None:
                break

    assert seen == ids[::-1]
    assert str(found.count) == "more than 5"


def test_pages_of_a_time_hold_each_row_once_by_time(engine: Engine) -> None:
    ids = [add_job(engine) for _ in range(6)]
    for days, tracking_id in enumerate(ids[:4]):
        shift(engine, -86_400 * (days + 1), "created_at", ids=[tracking_id])
    seen, after = [], None

    with queries.reading(engine) as db:
        now = queries.server_time(db)
        chosen = Filter(
            created_from=now - timedelta(days=3, hours=1), created_before=now - timedelta(hours=1)
        )
        while True:
            found = queries.page(db, JOBS, chosen, after=after, limit=2)
            seen += [row.id for row in found.rows]
            if (after := found.next) is None:
                break

    assert seen == ids[:3]


def test_rows_of_the_same_moment_are_on_the_pages_once_each(engine: Engine) -> None:
    ids = [add_job(engine) for _ in range(5)]
    change = "UPDATE tracking.job_tracking SET created_at = now() - interval '1 d'"
    with engine.begin() as db:
        db.execute(text(change))
    seen, after = [], None

    with queries.reading(engine) as db:
        chosen = Filter(created_before=queries.server_time(db))
        while True:
            found = queries.page(db, JOBS, chosen, after=after, limit=2)
            seen += [row.id for row in found.rows]
            if (after := found.next) is None:
                break

    assert seen == ids[::-1]


def test_a_search_goes_on_where_its_time_was_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FIRST_STRETCH", 3)
    monkeypatch.setattr(listing, "PATIENCE", 0.0)
    ids = [add_job(engine, payload="wanted" if number % 4 == 0 else "") for number in range(20)]
    seen, pages, after = [], 0, None

    with queries.reading(engine) as db:
        while True:
            found = queries.page(db, JOBS, Filter(fields={"payload": "wanted"}), after=after, limit=2)
            seen += [row.id for row in found.rows]
            pages += 1
            if (after := found.next) is None:
                break

    assert seen == ids[::4][::-1]
    assert pages > len(seen) / 2


def test_rows_that_no_index_finds_are_counted_in_the_newest_ones(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        add_job(engine, payload="wanted" if number % 2 else "")
    wanted = Filter(fields={"payload": "wanted"})

    with queries.reading(engine) as db:
        all_of_them = queries.page(db, JOBS, wanted, limit=1).count
        monkeypatch.setattr(listing, "MOST_SEARCHED", 5)
        some = queries.page(db, JOBS, wanted, limit=1).count
        more = queries.page(db, JOBS, wanted, limit=1, most=1).count

    assert (str(all_of_them), all_of_them.is_more) == ("4", False)
    assert (str(some), some.is_more) == ("2 among the newest 5", True)
    assert str(more) == "more than 1"


def test_the_overview_says_of_each_domain_what_is_said_of_it_alone(engine: Engine) -> None:
    one_of_each(engine)
    shift(engine, -100, "next_attempt_at", "heartbeat_at")
    domains = all_domains(RetryPolicy())
    bookkeeping.roll_up(engine, domains[0])

    with queries.reading(engine) as db:
        window = queries.Window.of("1h", queries.server_time(db))
        found = queries.overview(db, domains, window, lease=60.0, bound=60.0)
        alone = [
            queries.Overview(
                domain.name,
                queries.counts(db, domain),
                queries.oldest_pending(db, domain),
                queries.stuck(db, domain, lease=60.0).count,
                queries.overdue(db, domain, bound=60.0).count,
                queries.history(db, domain, window),
            )
            for domain in domains
        ]
        assert queries.overview(db, [], window, lease=60.0, bound=60.0) == []

    assert found == alone
    assert (found[0].stuck.count, found[0].overdue.count, found[0].counts.total) == (1, 1, 5)


def test_a_changed_token_and_one_of_another_filter_or_group_are_refused(engine: Engine) -> None:
    for _ in range(3):
        add_job(engine)

    with queries.reading(engine) as db:
        token = queries.page(db, JOBS, Filter(), limit=1).next
        assert token is not None
        swapped = ("B" if token[0] == "A" else "A") + token[1:]
        for bad, chosen, group in (
            (swapped, Filter(), None),
            (token, Filter(attempts_from=0), None),
            (token, Filter(), group_of("E: row 5")),
            ("", Filter(), None),
            ("ä", Filter(), None),
        ):
            with pytest.raises(InvalidField, match="page"):
                queries.page(db, JOBS, chosen, after=bad, group=group)


def test_one_row_comes_with_its_attempts(engine: Engine) -> None:
    job = add_job_in(engine, Status.FAILED, payload="x")

    with queries.reading(engine) as db:
        found = queries.details(db, JOBS, job, schema=SCHEMA)
        with pytest.raises(TrackingNotFound):
            queries.details(db, JOBS, 2**70, schema=SCHEMA)

    assert found.row.fields == {"payload": "x"}
    assert [(attempt.number, attempt.outcome, attempt.error) for attempt in found.log] == [
        (1, "error", "ValueError: no")
    ]
    assert (found.progress, found.prerequisites, found.dependents) == (None, (), ())


def test_workers_are_seen_in_the_rows(engine: Engine) -> None:
    one_of_each(engine)

    with queries.reading(engine) as db:
        (found,) = queries.workers(db, [JOBS, ORDERS])

    assert (found.worker, found.processing, found.completed, found.failed) == ("w1", 1, 1, 1)
    assert found.domains == ("job",)


def test_a_read_that_takes_too_long_is_given_up(engine: Engine) -> None:
    with pytest.raises(ReadTimeout), queries.reading(engine, timeout=0.01) as db:
        db.execute(text("SELECT pg_sleep(5)"))


def test_reading_writes_nothing(engine: Engine) -> None:
    with pytest.raises(InternalError, match="read-only"), queries.reading(engine) as db:
        db.execute(text("DELETE FROM tracking.job_tracking"))
