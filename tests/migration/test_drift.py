"""Drift is kept from pass to pass: open, known, healed, and what that means for the gate to cutover."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import psycopg
import pytest
from sqlalchemy import Engine

from tasktrail.errors import GateClosed, InvalidField, MigrationBusy, WrongPhase
from tasktrail.migration import carrier, drift, parallel
from tasktrail.migration.difference import Difference
from tasktrail.migration.drift import Entry, Pass
from tasktrail.migration.parallel import Report, begin, run_pass, run_pass_if_due, stop
from tasktrail.migration.plan import KnownDifference
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace
from tests.migration.conftest import start_syncing
from tests.migration.legacy import run_sql
from tests.migration.parallel import knowing, named, start_parallel
from tests.upkeep import Upkeep

DAMAGE = "UPDATE tracking.order_tracking SET status = 'FAILED' WHERE day = '2024-03-02'"
REPAIR = "UPDATE tracking.order_tracking SET status = 'PENDING' WHERE day = '2024-03-02'"
DAMAGED = ("checksum", 'orders ["2024-03-02", "USD"]', "different", "status")
ALWAYS = date(9999, 12, 31)


@pytest.fixture
def running(workspace: Workspace, db: Session) -> Workspace:
    """The migration in its parallel run."""
    return start_parallel(workspace, db)


def clean(workspace: Workspace, db: Session) -> int:
    """Return how many passes in a row were clean, since the parallel run began."""
    return drift.clean_passes(db, workspace, workspace.journal.require(db, "look").since)


def open_now(workspace: Workspace, db: Session) -> list[tuple[str, str, str, str]]:
    return [named(entry.difference) for entry in drift.entries(db, workspace)]


def rule(
    applies: Callable[[Difference], bool], name: str = "late", expires: date = ALWAYS
) -> KnownDifference:
    return KnownDifference(name=name, reason="for the test", expires=expires, applies=applies)


WITHOUT_TRIGGER = "ALTER TABLE old_orders DISABLE TRIGGER ALL; {}; ALTER TABLE old_orders ENABLE TRIGGER ALL"
BOTH_SIDES = {
    "missing on the new side": (
        "DELETE FROM tracking.order_tracking WHERE day = '2024-03-02'",
        "UPDATE old_orders SET note = note WHERE id = 4",
    ),
    "extra on the new side": (
        "INSERT INTO tracking.order_tracking (day, currency, status) VALUES ('2024-06-02', 'EUR', 'FAILED')",
        "DELETE FROM tracking.order_tracking WHERE day = '2024-06-02'",
    ),
    "another status on the new side": (DAMAGE, "UPDATE old_orders SET note = note WHERE id = 4"),
    "missing on the legacy side": (
        WITHOUT_TRIGGER.format("DELETE FROM old_orders WHERE id = 4"),
        (
            "INSERT INTO tracking.tasktrail_changes (side, table_name, source_key, operation) "
            "VALUES ('legacy', 'old_orders', '4', 'U')"
        ),
    ),
    "extra on the legacy side": (
        WITHOUT_TRIGGER.format(
            "INSERT INTO old_orders (id, kind, state, day, currency, made) "
            "VALUES (99, 'order', 'ok', '2024-06-02', 'EUR', now())"
        ),
        "UPDATE old_orders SET note = note WHERE id = 99",
    ),
    "another status on the legacy side": (
        WITHOUT_TRIGGER.format("UPDATE old_orders SET state = 'dropped' WHERE id = 4"),
        "UPDATE old_orders SET note = note WHERE id = 4",
    ),
}


@pytest.mark.parametrize("name", BOTH_SIDES)
def test_drift_closes_the_gate_in_one_pass_and_healing_opens_it(
    running: Workspace, db: Session, engine: Engine, name: str
) -> None:
    damage, repair = BOTH_SIDES[name]
    for count in (1, 2):
        assert run_pass(db, running).stored.is_clean
        assert clean(running, db) == count

    run_sql(engine, damage)
    found = run_pass(db, running).stored
    assert found.mismatches == len(open_now(running, db)) > 0
    assert clean(running, db) == 0

    run_sql(engine, repair)
    healed = run_pass(db, running).stored
    assert (healed.mismatches, healed.healed) == (0, found.mismatches)
    assert clean(running, db) == 1


def test_what_is_seen_again_is_the_same_entry_with_its_latest_values(
    running: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, DAMAGE)
    run_pass(db, running)
    (first,) = drift.entries(db, running)
    run_sql(engine, DAMAGE.replace("FAILED", "CANCELLED"))
    run_pass(db, running)
    (second,) = drift.entries(db, running)

    assert named(first.difference) == named(second.difference) == DAMAGED
    assert (first.passes, second.passes) == (1, 2)
    assert (first.difference.found, second.difference.found) == ("FAILED", "CANCELLED")
    assert second.first_seen_at == first.first_seen_at < first.last_seen_at + timedelta(1)
    assert second.last_seen_at > first.last_seen_at


def test_what_is_gone_at_the_next_pass_was_transient_and_what_comes_back_is_new(
    running: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, DAMAGE)
    run_pass(db, running)
    run_sql(engine, REPAIR)
    run_pass(db, running)
    assert drift.entries(db, running) == []
    run_sql(engine, DAMAGE)
    for _ in range(2):
        run_pass(db, running)
    run_sql(engine, REPAIR)
    run_pass(db, running)
    run_sql(engine, DAMAGE)
    run_pass(db, running)
    newest, *healed = drift.entries(db, running, healed=True)

    assert newest.healed_at is None
    assert [(entry.passes, entry.is_transient) for entry in healed] == [(2, False), (1, True)]
    assert drift.entries(db, running, healed=True, limit=1) == [newest]


def test_what_the_plan_knows_does_not_count(running: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, DAMAGE)
    run_pass(db, running)
    run_sql(engine, "UPDATE tracking.order_tracking SET attempts = 3 WHERE day = '2024-03-03'")
    knows = knowing(running, rule(lambda one: one.column == "status", "by design"))
    report = run_pass(db, knows)

    assert [(entry.difference.column, entry.known_as) for entry in drift.entries(db, running)] == [
        ("attempts", None),
        ("status", "by design"),
    ]
    assert (report.stored.mismatches, report.stored.known, report.warnings) == (1, 1, ())

    run_sql(engine, "UPDATE tracking.order_tracking SET attempts = 0 WHERE day = '2024-03-03'")
    assert run_pass(db, knows).stored.is_clean
    assert not run_pass(db, running).stored.is_clean, "a rule that was taken back explains nothing"


def test_a_rule_that_fails_explains_nothing_and_is_named(
    running: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, DAMAGE)
    broken = rule(lambda one: one.no_such_attribute, "broken")  # type: ignore[attr-defined]
    report = run_pass(db, knowing(running, rule(lambda _: True, "everything"), broken))

    assert report.stored.mismatches == 1
    assert report.warnings == (
        (
            "the rule 'broken' of the plan failed on 1 differences, which count as mismatches; e.g. "
            """old_orders orders ["2024-03-02", "USD"] different status: """
            "AttributeError: 'Difference' object has no attribute 'no_such_attribute'"
        ),
    )


def test_a_rule_explains_on_its_last_day_and_not_after(
    running: Workspace, db: Session, engine: Engine
) -> None:
    run_sql(engine, DAMAGE)
    today = db.value("SELECT (now() AT TIME ZONE 'UTC')::date")
    assert run_pass(db, knowing(running, rule(lambda _: True, expires=today))).stored.is_clean
    late = rule(lambda one: one.column == "status", expires=today - timedelta(days=1))
    report = run_pass(db, knowing(running, late))

    assert not report.stored.is_clean
    assert report.warnings == (
        (
            f"the rule 'late' of the plan expired on {today - timedelta(days=1)}; it would explain 1 "
            """differences, e.g. old_orders orders ["2024-03-02", "USD"] different status"""
        ),
    )


def test_a_rule_that_has_expired_and_fails_is_not_asked_for_its_opinion() -> None:
    from tests.migration.parallel import PAIRED

    broken = rule(lambda one: bool(1 / 0), expires=date(2020, 1, 1))
    plan = knowing(Workspace(PAIRED, None, None), broken, rule(lambda _: True, "good")).plan  # type: ignore[arg-type]
    explained = drift.explain(plan, [Difference("pair", "t", "k", "missing")], date(2024, 1, 1))

    assert explained == drift.Explained(("good",), ())


def test_a_pass_that_cannot_name_everything_heals_nothing_of_that_kind(
    running: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sql(engine, "UPDATE tracking.job_tracking SET payload = 'x' WHERE id = 9")
    run_pass(db, running)
    monkeypatch.setattr(drift, "MOST_SHOWN", 2)
    monkeypatch.setattr("tasktrail.migration.verify.MOST_SHOWN", 2)
    run_sql(engine, "UPDATE tracking.job_tracking SET payload = 'x'")
    found = run_pass(db, running).stored

    assert (found.healed, found.mismatches) == (0, 9 - 2 + 3)
    assert any(named(entry.difference)[1] == "jobs 9" for entry in drift.entries(db, running))


STRAGGLER = Difference("straggler", "old_orders", "4", "written")


def test_what_others_recorded_is_not_healed_by_a_pass_and_can_be_settled(
    running: Workspace, db: Session
) -> None:
    drift.record(db, running, [STRAGGLER, STRAGGLER, Difference("unwritable", "old_jobs", "4", "too long")])
    drift.record(db, running, [STRAGGLER])
    drift.record(db, running, [])
    found = run_pass(db, running).stored
    assert (found.mismatches, found.healed) == (2, 0)
    assert [entry.passes for entry in drift.entries(db, running)] == [1, 2]

    assert drift.settle(db, running, "straggler", ["4"], table="old_jobs") == 0
    assert drift.settle(db, running, "straggler", ["4", "5"]) == 1
    assert drift.settle(db, running, "straggler", ["4"]) == 0
    assert [entry.difference.way for entry in drift.entries(db, running)] == ["unwritable"]
    assert not any(entry.is_transient for entry in drift.entries(db, running, healed=True))


def test_passes_of_another_run_do_not_count(running: Workspace, db: Session) -> None:
    run_pass(db, running)
    stop(db, running)
    begin(db, running)
    assert clean(running, db) == 0
    run_pass(db, running)

    assert clean(running, db) == 1
    assert [one.is_clean for one in drift.passes(db, running)] == [True, True]


# The phase


def test_the_parallel_run_begins_once_and_lasts_as_long_as_was_said(running: Workspace, db: Session) -> None:
    stop(db, running)
    assert begin(db, running, timedelta(hours=1)) is True
    assert begin(db, running, timedelta(hours=9)) is False
    state = running.journal.require(db, "look")

    assert state.phase is Phase.PARALLEL
    assert state.window_ends_at is not None
    assert timedelta(minutes=59) < state.window_ends_at - state.since <= timedelta(hours=1, seconds=1)
    assert not state.is_window_over


def test_an_empty_window_is_over_at_once_and_a_negative_one_is_none(running: Workspace, db: Session) -> None:
    stop(db, running)
    with pytest.raises(InvalidField, match=r"window: must not be negative \(got '-1 day, 0:00:00'\)"):
        begin(db, running, timedelta(days=-1))
    begin(db, running, timedelta(0))

    assert running.journal.require(db, "look").is_window_over


def test_another_plan_than_that_of_the_dry_run_does_not_begin(running: Workspace, db: Session) -> None:
    stop(db, running)
    with pytest.raises(GateClosed, match="look at it again with `tasktrail migrate plan`"):
        begin(db, knowing(running, rule(lambda _: True)))

    assert running.journal.require(db, "look").phase is Phase.VERIFIED


def test_there_is_nothing_to_compare_before_the_copy_and_nothing_to_stop_before_the_run(
    workspace: Workspace, db: Session
) -> None:
    start_syncing(workspace, db)
    with pytest.raises(WrongPhase, match="go on with `tasktrail migrate backfill`"):
        run_pass(db, workspace)
    with pytest.raises(WrongPhase, match="cannot begin the parallel run now, the migration is syncing"):
        begin(db, workspace)
    with pytest.raises(WrongPhase, match="cannot stop the parallel run now"):
        stop(db, workspace)


def test_a_pass_during_which_the_phase_changed_stores_nothing(
    running: Workspace, db: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = parallel.compare

    def cut_over_meanwhile(*given: object) -> object:
        found = really(*given)  # type: ignore[arg-type]
        run_sql(engine, "UPDATE tracking.tasktrail_migrations SET phase = 'cut_over'")
        return found

    monkeypatch.setattr(parallel, "compare", cut_over_meanwhile)
    with pytest.raises(WrongPhase, match="the migration is cut_over"):
        run_pass(db, running)

    assert drift.passes(db, running) == []


# Several at once, and on a schedule


def test_one_pass_at_a_time(running: Workspace, db: Session) -> None:
    def attempt(_: int) -> Report | None:
        return run_pass_if_due(running, timedelta(hours=1))

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(attempt, range(4)))

    assert sum(report is not None for report in reports) == 1
    assert len(drift.passes(db, running)) == 1


def test_a_pass_while_somebody_compares_is_refused(
    running: Workspace, db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running.session("other") as other, other.alone("shop", "comparison", doing="compare"):
        assert run_pass_if_due(running, timedelta(seconds=1)) is None
        monkeypatch.setattr("tasktrail.migration.session.time.monotonic", iter(range(0, 9999, 3)).__next__)
        with pytest.raises(MigrationBusy, match="cannot compare while somebody else does"):
            run_pass(db, running)


def test_a_pass_is_due_when_the_last_one_is_old_enough_and_only_in_the_parallel_run(
    running: Workspace, db: Session, engine: Engine
) -> None:
    hour = timedelta(hours=1)
    assert run_pass_if_due(running, hour) is not None
    assert run_pass_if_due(running, hour) is None
    run_sql(engine, "UPDATE tracking.tasktrail_comparisons SET started_at = started_at - interval '1 h'")
    assert run_pass_if_due(running, hour) is not None

    stop(db, running)
    run_sql(engine, "UPDATE tracking.tasktrail_comparisons SET started_at = started_at - interval '1 h'")
    assert run_pass_if_due(running, hour) is None


def test_a_pass_on_a_schedule_says_what_it_found(
    running: Workspace, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    run_sql(engine, DAMAGE)
    late = rule(lambda _: True, expires=date(2020, 1, 1))
    run_pass_if_due(knowing(running, late), timedelta(hours=1))

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "1 mismatches" in caplog.messages[0]
    assert "`tasktrail migrate drift`" in caplog.messages[0]
    assert "'late' of the plan expired on 2020-01-01" in caplog.messages[1]


WRITES = (
    (
        "INSERT INTO old_orders (kind, state, day, currency, tags, made, touched) "
        "VALUES ('order', 'new', %(day)s, 'EUR', 'a', now(), now())"
    ),
    "UPDATE old_orders SET state = %(state)s, touched = clock_timestamp() WHERE day = %(day)s",
    "DELETE FROM old_orders WHERE day = %(day)s",
    "UPDATE old_jobs SET state = %(state)s WHERE id = %(id)s",
)


def test_old_writers_during_a_pass_give_no_false_alarm(running: Workspace, engine: Engine) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ended = threading.Event()
    errors: list[BaseException] = []
    written = [0, 0]

    def write(seed: int) -> None:
        dice = random.Random(seed)
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while not ended.wait(0.004):
                    values = {
                        "day": f"2024-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}",
                        "state": dice.choice(["new", "busy", "ok", "broken", "odd"]),
                        "id": dice.randrange(1, 13),
                    }
                    connection.execute(dice.choice(WRITES).encode(), values)
                    written[seed] += 1
        except BaseException as error:  # the test fails with it
            errors.append(error)

    def follow() -> None:
        with running.session("follower") as follower:
            carrier.follow(follower, running, ended, interval=0.01, share=0.5)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    threads.append(threading.Thread(target=follow))
    found: list[Pass] = []
    for thread in threads:
        thread.start()
    try:
        with running.session("passes") as session:
            while len(found) < 3 or min(written) <= 150:
                found.append(run_pass(session, running).stored)
                assert all(thread.is_alive() for thread in threads)
            seen = drift.entries(session, running, healed=True)
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)

    assert errors == []
    assert [entry.difference for entry in seen] == []


def test_mirrored_rows_that_are_unfinished_are_neither_dispatched_nor_rescued(
    running: Workspace, db: Session, engine: Engine, database_url: str
) -> None:
    run_sql(
        engine,
        "INSERT INTO old_jobs (payload, state, made) VALUES ('waits', 'new', '2020-01-01'), "
        "('stuck', 'busy', '2020-01-01')",
    )
    run_pass(db, running)
    mirrored = "SELECT * FROM tracking.{} ORDER BY id"
    before = [db.rows(mirrored.format(table)) for table in ("job_tracking", "order_tracking")]
    assert {"PENDING", "PROCESSING"} <= {row["status"] for rows in before for row in rows}
    new = "INSERT INTO tracking.job_tracking (payload, celery_task_id) VALUES ('of the new side', 'ours')"
    run_sql(engine, new)
    upkeep = Upkeep(database_url, lease=0.5, heartbeat_interval=0.1, retention=1)
    try:
        rounds, pruned = upkeep.tick_until_nothing_is_left(), upkeep.prune()
    finally:
        upkeep.engines.dispose()
    (own,) = db.rows("SELECT id FROM tracking.job_tracking WHERE payload = 'of the new side'")

    assert set(upkeep.outbox.sent) == {("job", own["id"])}, "what the new side made itself goes its way"
    assert [(done.dispatched, done.rescued) for done in rounds] == [(1, 0)]
    assert pruned == 0
    after = [db.rows(mirrored.format(table)) for table in ("job_tracking", "order_tracking")]
    assert [[row for row in rows if row["id"] != own["id"]] for rows in after] == before
    assert run_pass(db, running).stored.is_clean


def test_entries_are_what_a_pass_found(running: Workspace, db: Session, engine: Engine) -> None:
    run_sql(engine, DAMAGE)
    report = run_pass(db, running)
    (entry,) = drift.entries(db, running)

    assert isinstance(entry, Entry)
    assert [entry.difference] == [
        one for verdict in report.comparison.verdicts for one in verdict.differences
    ]
    assert drift.passes(db, running) == [report.stored]
