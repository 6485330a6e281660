"""The cutover and the rollback: who has the truth, and that nothing is lost when that changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from tasktrail.errors import DirectionTurned, GateClosed, MigrationError, WrongPhase
from tasktrail.migration import locks, sync
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.carrier import Carrier
from tasktrail.migration.compare import compare
from tasktrail.migration.cutover import Cutover
from tasktrail.migration.difference import Difference
from tasktrail.migration.gate import Conditions
from tasktrail.migration.reverse import ways_back
from tasktrail.migration.rollback import Rollback
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.steps import troubles
from tasktrail.migration.workspace import Workspace
from tests.migration.legacy import run_sql
from tests.migration.parallel import PAIRED
from tests.waiting import until

ANY = Conditions(clean_passes=0, second_window=timedelta())
"""Nothing but what can never be waived."""


@pytest.fixture
def parallel(workspace: Workspace, db: Session) -> Workspace:
    """The parallel run, its window over and what is quarantined accepted."""
    runner = Runner(workspace, db)
    runner.plan()
    runner.expand()
    runner.sync()
    runner.backfill(Backfill(workspace))
    assert [verdict.differing for verdict in runner.verify()] == [0, 0, 0]
    db.run("UPDATE tracking.tasktrail_raw SET accepted_at = now()")
    with db.transaction():
        workspace.journal.move(db, Phase.PARALLEL, step="parallel", window=timedelta())
    return workspace


@pytest.fixture
def cut_over(parallel: Workspace, db: Session) -> Workspace:
    """The new tables are the truth."""
    assert Cutover(parallel, db).run(ANY)
    return parallel


@contextmanager
def writing(workspace: Workspace) -> Iterator[psycopg.Connection[Any]]:
    """A transaction of somebody else's."""
    connection = workspace.engines.dedicated("writer")
    connection.autocommit = False
    with connection:
        yield connection


def orders(db: Session) -> dict[str, dict[str, Any]]:
    rows = db.rows("SELECT *, day || ' ' || currency AS name FROM tracking.order_tracking ORDER BY day")
    return {row["name"]: row for row in rows}


def legacy_orders(db: Session) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in db.rows("SELECT * FROM old_orders ORDER BY id")}


def is_balanced(workspace: Workspace, db: Session) -> bool:
    return Runner(workspace, db).account().is_balanced


class TestCutover:
    def test_the_new_tables_become_the_truth_once(self, parallel: Workspace, db: Session) -> None:
        assert Cutover(parallel, db).run(ANY)
        assert parallel.journal.require(db, "test").phase is Phase.CUT_OVER
        assert not Cutover(parallel, db).run(ANY)
        assert is_balanced(parallel, db)

    def test_what_is_in_the_queue_is_carried_over_first(self, parallel: Workspace, db: Session) -> None:
        db.run("UPDATE old_orders SET state = 'broken', note = 'late', touched = now() WHERE id = 4")
        Cutover(parallel, db).run(ANY)

        assert orders(db)["2024-03-02 USD"]["error_message"] == "late"

    def test_unfinished_rows_that_are_young_are_due_and_old_ones_are_given_up(
        self, parallel: Workspace, db: Session
    ) -> None:
        db.run("UPDATE old_orders SET touched = now() AT TIME ZONE 'UTC' - interval '23 hours' WHERE id = 4")
        db.run("UPDATE old_orders SET note = 'why' WHERE id = 5")
        Cutover(parallel, db).run(ANY)
        young, old = orders(db)["2024-03-02 USD"], orders(db)["2024-03-03 USD"]

        assert (young["status"], old["status"]) == ("PENDING", "FAILED")
        assert young["next_attempt_at"] is not None
        assert old["error_message"] == "abandoned before migration; its last error: why"
        assert old["completed_at"] is not None
        assert legacy_orders(db)[5]["state"] == "broken"
        assert legacy_orders(db)[4]["state"] == "new"

    def test_new_ids_go_on_after_the_legacy_ones_with_room_for_old_workers(
        self, parallel: Workspace, db: Session
    ) -> None:
        insert = "INSERT INTO tracking.job_tracking (payload) VALUES ('x') RETURNING id"
        before = db.value(insert)
        Cutover(parallel, db).run(ANY)

        assert before >= 2**31
        assert db.value(insert) == 12 + 1_000_000

    def test_old_writers_wait_for_no_longer_than_the_locks_are_held(
        self, parallel: Workspace, db: Session
    ) -> None:
        Cutover(parallel, db).run(ANY)
        note = next(event for event in parallel.journal.events(db) if event["what"] == "cut over: locked")

        assert note["details"]["milliseconds"] >= 0
        assert note["details"]["attempt"] == 1

    @pytest.mark.parametrize(
        ("sql", "said"),
        [
            ("UPDATE tracking.tasktrail_migrations SET window_ends_at = now() + interval '1 day'", "window"),
            ("UPDATE tracking.tasktrail_migrations SET fingerprint = 'x'", "plan was changed"),
            ("UPDATE tracking.tasktrail_raw SET accepted_at = NULL", "are quarantined as"),
            ("ALTER TABLE old_orders DISABLE TRIGGER tasktrail_update_old_orders", "is disabled"),
            ("CREATE VIEW seen AS SELECT * FROM old_jobs", "the view seen points at public.old_jobs"),
            ("CREATE TABLE other (job bigint REFERENCES old_jobs)", "the foreign key"),
            (
                "DELETE FROM tracking.tasktrail_ledger WHERE table_name = 'old_jobs' AND source_key = '1'",
                "the account is not balanced",
            ),
        ],
    )
    def test_a_closed_gate_says_why_and_changes_nothing(
        self, parallel: Workspace, db: Session, sql: str, said: str
    ) -> None:
        db.run(sql)
        with pytest.raises(GateClosed, match=said):
            Cutover(parallel, db).run(ANY)

        assert parallel.journal.require(db, "test").phase is Phase.PARALLEL
        assert any(said in reason for reason in Cutover(parallel, db).gate(ANY))

    def test_too_few_clean_comparisons_and_too_much_lag_close_the_gate(
        self, parallel: Workspace, db: Session
    ) -> None:
        db.run("UPDATE old_jobs SET payload = payload || '!'")
        gate = Cutover(parallel, db).gate(Conditions(clean_passes=1, entries=11, second_window=timedelta()))

        assert [reason.partition(";")[0] for reason in gate] == [
            "0 clean comparisons in a row, 1 are needed",
            "12 changes are to be applied, the oldest is 0 s old",
        ]

    def test_it_is_refused_in_any_other_phase(self, syncing: Workspace, db: Session) -> None:
        with pytest.raises(WrongPhase, match="go on with `tasktrail migrate backfill`"):
            Cutover(syncing, db).run(ANY)

    def test_locks_that_are_not_had_leave_everything_as_before(
        self, parallel: Workspace, db: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "ATTEMPTS", 2)
        with writing(parallel) as writer:
            writer.execute("UPDATE old_jobs SET payload = 'mine' WHERE id = 1")
            with pytest.raises(MigrationError, match=r"could not cut over.*a long transaction has it"):
                Cutover(parallel, db).run(ANY)
        triggers = db.value(
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'tracking.job_tracking'::regclass "
            "AND NOT tgisinternal"
        )

        assert parallel.journal.require(db, "test").phase is Phase.PARALLEL
        assert triggers == 0
        assert db.value("SELECT nextval('tracking.job_tracking_id_seq')") >= 2**31

    def test_it_waits_for_a_writer_that_is_about_to_commit(self, parallel: Workspace, db: Session) -> None:
        with writing(parallel) as writer:
            writer.execute("UPDATE old_jobs SET payload = 'last word' WHERE id = 1")
            cutting = threading.Thread(target=lambda: _cut_over(parallel))
            cutting.start()
            until(lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = "
                                   "'old_jobs'::regclass"))  # fmt: skip
            writer.commit()
        cutting.join(30)

        assert parallel.journal.require(db, "test").phase is Phase.CUT_OVER
        assert db.value("SELECT payload FROM tracking.job_tracking WHERE id = 1") == "last word"


def _cut_over(workspace: Workspace) -> None:
    with workspace.session("cut over") as session:
        Cutover(workspace, session).run(ANY)


class TestWhoeverBeganBeforeTheTurn:
    def test_applies_no_legacy_change_after_the_cutover_as_if_it_were_the_truth(
        self, parallel: Workspace, db: Session
    ) -> None:
        with parallel.session("follower") as late:
            reconcilers = parallel.reconcilers(late, error_budget=None)
            Cutover(parallel, db).run(ANY)
            db.run("UPDATE tracking.job_tracking SET status = 'COMPLETED', worker = 'w' WHERE id = 5")
            Carrier(parallel, db).carry()
            db.run("UPDATE old_jobs SET state = 'broken' WHERE id = 5")
            with pytest.raises(DirectionTurned):
                sync.apply_changes(late, parallel, reconcilers)

        assert db.value("SELECT status FROM tracking.job_tracking WHERE id = 5") == "COMPLETED"
        assert sync.lag(db, parallel).entries == 1

    def test_writes_nothing_back_after_a_rollback(self, cut_over: Workspace, db: Session) -> None:
        with cut_over.session("follower") as late:
            stagings = [one.staging for one in cut_over.reconcilers(late, truth="new")]
            ways = ways_back(cut_over, stagings)
            Rollback(cut_over, db).run()
            db.run("INSERT INTO tracking.tasktrail_changes (side, table_name, source_key, operation) "
                   "VALUES ('new', 'old_jobs.jobs', '1', 'U')")  # fmt: skip
            db.run("UPDATE old_jobs SET state = 'broken' WHERE id = 1")
            with pytest.raises(DirectionTurned):
                [way.apply(late) for way in ways]

        assert db.value("SELECT state FROM old_jobs WHERE id = 1") == "broken"

    def test_is_told_so_and_goes_on_in_the_new_direction(self, parallel: Workspace, db: Session) -> None:
        with parallel.session("follower") as late:
            carrier = Carrier(parallel, late)
            carrier.carry()
            Cutover(parallel, db).run(ANY)
            db.run("UPDATE tracking.job_tracking SET status = 'CANCELLED', worker = 'w' WHERE id = 5")
            until(lambda: carrier.carry() == 1)

        assert db.value("SELECT state FROM old_jobs WHERE id = 5") == "dropped"


class TestWritingBack:
    def test_a_change_of_the_new_side_is_written_to_the_row_where_old_readers_look(
        self, cut_over: Workspace, db: Session
    ) -> None:
        before = legacy_orders(db)
        db.run("UPDATE tracking.order_tracking SET status = 'FAILED', error_message = 'gone wrong', "
               "celery_task_id = 'c', updated_at = now() WHERE day = '2024-03-01'")  # fmt: skip
        Carrier(cut_over, db).carry()
        after = legacy_orders(db)

        assert (after[3]["state"], after[3]["note"]) == ("broken", "gone wrong")
        assert {number: row for number, row in after.items() if number not in {3, 4, 5}} == {
            number: row for number, row in before.items() if number not in {3, 4, 5}
        }
        assert is_balanced(cut_over, db)

    def test_a_unit_that_the_legacy_table_does_not_know_gets_a_row(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("INSERT INTO tracking.order_tracking (day, currency, tags, details, status) "
               "VALUES ('2026-01-01', 'CHF', '{a,b}', '{\"n\": 1}', 'COMPLETED')")  # fmt: skip
        number = db.value("INSERT INTO tracking.job_tracking (payload) VALUES ('new') RETURNING id")
        Carrier(cut_over, db).carry()
        made = list(legacy_orders(db).values())[-1]

        assert (made["id"], made["kind"], made["state"], made["day"]) == (15, "order", "ok", "2026-01-01")
        assert (made["tags"], made["details"]) == ("a,b", {"n": 1})
        assert db.value(f"SELECT payload FROM old_jobs WHERE id = {number}") == "new"
        assert is_balanced(cut_over, db)

    def test_a_row_deleted_on_the_new_side_leaves_a_tombstone_and_its_raw_row(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("DELETE FROM tracking.job_tracking WHERE id = 1")
        Carrier(cut_over, db).carry()
        kept = db.value("SELECT raw FROM tracking.tasktrail_raw WHERE table_name = 'old_jobs' "
                        "AND source_key = '1'")  # fmt: skip

        assert db.value("SELECT count(*) FROM old_jobs WHERE id = 1") == 0
        assert '"payload":"job 1"' in kept
        assert is_balanced(cut_over, db)

    def test_a_row_that_the_legacy_table_cannot_hold_is_reported_and_holds_nothing_up(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("ALTER TABLE old_jobs ADD CHECK (payload <> 'unheard of')")
        db.run(
            "INSERT INTO tracking.job_tracking (payload) SELECT CASE n WHEN 7 THEN 'unheard of' "
            "ELSE 'fine' END FROM generate_series(1, 20) n"
        )
        Carrier(cut_over, db).carry()
        drift = db.rows("SELECT found_by, what, found FROM tracking.tasktrail_drift WHERE healed_at IS NULL")

        assert db.value("SELECT count(*) FROM old_jobs WHERE payload = 'fine'") == 19
        assert [one["what"] for one in drift] == ["public.old_jobs cannot hold it"]
        assert "violates check constraint" in drift[0]["found"]

        db.run("UPDATE tracking.job_tracking SET payload = 'mended' WHERE payload = 'unheard of'")
        Carrier(cut_over, db).carry()
        assert db.value("SELECT count(*) FROM old_jobs WHERE payload = 'mended'") == 1
        assert db.value("SELECT count(*) FROM tracking.tasktrail_drift WHERE healed_at IS NULL") == 0


class TestStragglers:
    def test_an_old_worker_that_still_writes_is_reported_and_its_row_is_applied(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("UPDATE old_jobs SET state = 'broken' WHERE id = 4")
        db.run("INSERT INTO old_jobs (payload, state, made) VALUES ('late', 'new', now() AT TIME ZONE 'UTC')")
        Carrier(cut_over, db).carry()
        drift = db.rows("SELECT row_key, what FROM tracking.tasktrail_drift ORDER BY row_key")
        late = db.row("SELECT status, next_attempt_at FROM tracking.job_tracking WHERE payload = 'late'")

        assert db.value("SELECT status FROM tracking.job_tracking WHERE id = 4") == "FAILED"
        assert late is not None
        assert (late["status"], late["next_attempt_at"] is not None) == ("PENDING", True)
        assert [(one["row_key"], one["what"]) for one in drift] == [
            ("13", "written by an old worker"), ("4", "written by an old worker")
        ]  # fmt: skip
        assert is_balanced(cut_over, db)

    def test_what_an_old_worker_begins_is_run_by_the_new_side_however_old_it_says_it_is(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("INSERT INTO old_jobs (id, payload, state, made) VALUES (900, 'late', 'new', '2020-01-01')")
        Carrier(cut_over, db).carry()
        job = "SELECT status, next_attempt_at <= now() AS is_due FROM tracking.job_tracking WHERE id = 900"
        found = db.row(job)
        Rollback(cut_over, db).run()
        verdicts = compare(db, cut_over, cut_over.stagings(db)).verdicts

        assert found == {"status": "PENDING", "is_due": True}
        assert [verdict.differences for verdict in verdicts] == [[], [], []]

    def test_what_the_new_side_has_worked_on_stays_and_the_legacy_row_is_written_again(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("UPDATE tracking.job_tracking SET status = 'COMPLETED', worker = 'w' WHERE id = 5")
        Carrier(cut_over, db).carry()
        db.run("UPDATE old_jobs SET state = 'broken' WHERE id = 5")
        Carrier(cut_over, db).carry()

        assert db.value("SELECT status FROM tracking.job_tracking WHERE id = 5") == "COMPLETED"
        assert db.value("SELECT state FROM old_jobs WHERE id = 5") == "ok"
        assert is_balanced(cut_over, db)

    def test_what_an_old_worker_deletes_comes_back_where_the_new_side_has_worked_on_it(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("UPDATE tracking.job_tracking SET status = 'COMPLETED', worker = 'w' WHERE id = 5")
        db.run(
            "UPDATE tracking.order_tracking SET status = 'COMPLETED', worker = 'w' WHERE day = '2024-03-03'"
        )
        Carrier(cut_over, db).carry()
        db.run("DELETE FROM old_jobs WHERE id IN (4, 5)")
        db.run("DELETE FROM old_orders WHERE id = 5")
        Carrier(cut_over, db).carry()

        assert db.value("SELECT array_agg(id) FROM old_jobs WHERE id IN (4, 5)") == [5]
        assert db.value("SELECT count(*) FROM tracking.job_tracking WHERE id = 4") == 0
        assert db.value("SELECT id FROM old_orders WHERE day = '2024-03-03'") == 15
        assert is_balanced(cut_over, db)


class TestRollback:
    def test_old_readers_see_a_thousand_rows_made_and_changed_by_the_new_side(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("INSERT INTO tracking.job_tracking (payload, status, celery_task_id) SELECT 'made ' || n, "
               "(ARRAY['COMPLETED', 'FAILED', 'PENDING', 'CANCELLED'])[1 + n % 4], 'c' || n "
               "FROM generate_series(1, 1000) n")  # fmt: skip
        db.run("UPDATE tracking.job_tracking SET status = 'CANCELLED', updated_at = now() "
               "WHERE payload LIKE 'made %' AND id % 5 = 0")  # fmt: skip
        assert Rollback(cut_over, db).run()
        seen = db.row("SELECT count(*) AS rows, count(*) FILTER (WHERE state = 'dropped') AS dropped "
                      "FROM old_jobs WHERE payload LIKE 'made %'")  # fmt: skip

        assert seen == {"rows": 1000, "dropped": 400}
        assert cut_over.journal.require(db, "test").phase is Phase.PARALLEL
        assert is_balanced(cut_over, db)
        assert [verdict.differences for verdict in Runner(cut_over, db).verify()] == [[], [], []]
        assert not Rollback(cut_over, db).run()

    def test_afterwards_the_new_side_follows_again_also_rows_that_it_worked_on(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("UPDATE tracking.job_tracking SET status = 'FAILED', celery_task_id = 'c', worker = 'w' "
               "WHERE id = 5")  # fmt: skip
        made = db.value("INSERT INTO tracking.job_tracking (payload, celery_task_id, next_attempt_at) "
                        "VALUES ('made', 'c', now()) RETURNING id")  # fmt: skip
        Rollback(cut_over, db).run()
        held = db.row(
            f"SELECT status, next_attempt_at, celery_task_id FROM tracking.job_tracking WHERE id = {made}"
        )
        db.run(f"UPDATE old_jobs SET state = 'ok' WHERE id IN (5, {made})")
        Carrier(cut_over, db).carry()

        assert held == {"status": "PENDING", "next_attempt_at": None, "celery_task_id": None}
        assert (
            db.rows(f"SELECT status, worker FROM tracking.job_tracking WHERE id IN (5, {made})")
            == [{"status": "COMPLETED", "worker": None}] * 2
        )
        assert [verdict.differences for verdict in Runner(cut_over, db).verify()] == [[], [], []]

    def test_what_was_written_back_is_paired_with_itself_when_an_old_worker_does_the_same_work_again(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("UPDATE tracking.job_tracking SET status = 'FAILED', completed_at = now(), "
               "celery_task_id = 'c', worker = 'w' WHERE id = 5")  # fmt: skip
        Rollback(cut_over, db).run()
        db.run("INSERT INTO old_jobs (payload, state, made) "
               "SELECT payload, 'ok', now() FROM old_jobs WHERE id = 5")  # fmt: skip
        Carrier(cut_over, db).carry()
        paired = replace(cut_over, plan=PAIRED)
        found = compare(db, paired, paired.stagings(db))

        assert (found.pairs, [verdict.differences for verdict in found.verdicts]) == (1, [[], [], []])

        db.run("UPDATE tracking.job_tracking SET status = 'CANCELLED' WHERE id = 5")
        *_, pairs = compare(db, paired, paired.stagings(db)).verdicts

        assert pairs.differences == [
            Difference("pair", "old_jobs", "jobs 5", "different", "status", "FAILED", "CANCELLED")
        ]

    def test_both_sides_number_their_rows_apart_again(self, cut_over: Workspace, db: Session) -> None:
        insert = "INSERT INTO tracking.job_tracking (payload) VALUES ('x') RETURNING id"
        made = db.value(insert)
        Rollback(cut_over, db).run()

        assert db.value("INSERT INTO old_jobs (payload, made) VALUES ('y', now()) RETURNING id") == made + 1
        assert db.value(insert) >= 2**31

    def test_a_second_cutover_works(self, cut_over: Workspace, db: Session) -> None:
        db.run("INSERT INTO tracking.job_tracking (payload, next_attempt_at) VALUES ('made', now())")
        Rollback(cut_over, db).run()
        db.run("INSERT INTO old_jobs (payload, state, made) VALUES ('old again', 'ok', now())")
        db.run("UPDATE tracking.tasktrail_raw SET accepted_at = now()")
        assert Cutover(cut_over, db).run(ANY)

        assert db.rows("SELECT payload, status, next_attempt_at IS NOT NULL AS is_due FROM "
                       "tracking.job_tracking WHERE id > 12 ORDER BY payload") == [
            {"payload": "made", "status": "PENDING", "is_due": True},
            {"payload": "old again", "status": "COMPLETED", "is_due": False},
        ]  # fmt: skip
        assert is_balanced(cut_over, db)

    def test_rows_that_would_come_back_as_something_else_close_the_gate_until_they_are_accepted(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("INSERT INTO tracking.job_tracking (payload) VALUES ('unheard of')")
        db.run("ALTER TABLE old_jobs ADD CHECK (payload <> 'unheard of')")
        db.run("INSERT INTO tracking.order_tracking (day, currency, status) VALUES ('0001-01-01', 'EUR', "
               "'COMPLETED')")  # fmt: skip
        db.run("UPDATE tracking.order_tracking SET currency = 'eur' WHERE day = '0001-01-01'")
        losses = Rollback(cut_over, db).losses()

        assert [(loss.key, loss.found) for loss in losses][1:] == [
            ('orders ["0001-01-01", "eur"]', "bad_currency")
        ]
        with pytest.raises(GateClosed, match="cannot hold 2 rows as they are: jobs"):
            Rollback(cut_over, db).run()
        assert cut_over.journal.require(db, "test").phase is Phase.CUT_OVER
        assert Rollback(cut_over, db).run(accept_losses=True)
        assert db.value("SELECT count(*) FROM tracking.job_tracking WHERE payload = 'unheard of'") == 1

    def test_rows_that_are_being_worked_on_close_the_gate(self, cut_over: Workspace, db: Session) -> None:
        db.run("INSERT INTO tracking.job_tracking (payload, status) VALUES ('now', 'PROCESSING')")

        with pytest.raises(GateClosed, match=r"1 rows of tracking\.job_tracking are being worked on"):
            Rollback(cut_over, db).run()

    def test_a_writer_of_the_new_side_that_holds_its_table_leaves_everything_as_before(
        self, cut_over: Workspace, db: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "ATTEMPTS", 2)
        with writing(cut_over) as writer:
            writer.execute("UPDATE tracking.job_tracking SET status = 'CANCELLED' WHERE id = 1")
            with pytest.raises(MigrationError, match=r"could not roll back.*Everything is as before"):
                Rollback(cut_over, db).run()

        assert cut_over.journal.require(db, "test").phase is Phase.CUT_OVER
        Carrier(cut_over, db).carry()
        assert db.value("SELECT state FROM old_jobs WHERE id = 1") == "dropped"

    def test_jobs_that_wait_are_held_before_the_locks_however_many_there_are(
        self, cut_over: Workspace, db: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tasktrail.migration.rollback.BATCH", 10)
        db.run("INSERT INTO tracking.job_tracking (payload, celery_task_id, next_attempt_at) "
               "SELECT 'made', 'c' || n, now() FROM generate_series(1, 35) n")  # fmt: skip
        due = "SELECT count(*) FROM tracking.job_tracking WHERE payload = 'made' AND next_attempt_at <= now()"
        left: list[int] = []
        flip = Rollback._flip

        def look_first(rollback: Rollback, *args: Any) -> None:
            left.append(db.value(due))
            flip(rollback, *args)

        monkeypatch.setattr(Rollback, "_flip", look_first)
        assert Rollback(cut_over, db).run()

        assert left == [0]
        assert db.value("SELECT count(*) FROM old_jobs WHERE payload = 'made' AND state = 'new'") == 35

    def test_jobs_that_wait_are_due_again_when_the_locks_are_not_had(
        self, cut_over: Workspace, db: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "ATTEMPTS", 1)
        db.run("INSERT INTO tracking.job_tracking (payload, next_attempt_at, updated_at) "
               "VALUES ('made', now(), '2020-01-01'), ('later', '2100-01-01', now())")  # fmt: skip
        with writing(cut_over) as writer:
            writer.execute("UPDATE tracking.job_tracking SET status = 'CANCELLED' WHERE id = 1")
            with pytest.raises(MigrationError, match="could not roll back"):
                Rollback(cut_over, db).run()

        later = "SELECT next_attempt_at::date::text FROM tracking.job_tracking WHERE payload = 'later'"
        assert db.value(later) == "2100-01-01"
        assert db.value("SELECT next_attempt_at <= now() FROM tracking.job_tracking WHERE payload = 'made'")
        assert troubles(db, cut_over) == []

    def test_jobs_that_wait_when_it_is_killed_are_named_and_a_cutover_makes_them_due_again(
        self, cut_over: Workspace, db: Session
    ) -> None:
        db.run("INSERT INTO tracking.job_tracking (payload, next_attempt_at) VALUES ('made', now())")
        with cut_over.session("killed") as killed:
            rollback = Rollback(cut_over, killed)
            reconcilers, ways = rollback._carried()
            for way in ways:
                way.create(killed)
            rollback._drain(reconcilers, ways)
        (trouble,) = troubles(db, cut_over)
        assert not Cutover(cut_over, db).run(ANY)

        assert trouble.startswith("1 jobs wait that nobody will run: a rollback")
        assert troubles(db, cut_over) == []
        assert db.value("SELECT next_attempt_at <= now() FROM tracking.job_tracking WHERE payload = 'made'")


@contextmanager
def carrying(workspace: Workspace) -> Iterator[None]:
    """Carry changes over, in whichever direction, beside everything else."""
    stop = threading.Event()

    def work() -> None:
        with workspace.session("carrier") as session:
            carrier = Carrier(workspace, session)
            while not stop.is_set():
                carrier.carry()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def test_the_direction_is_turned_again_and_again_while_both_sides_write(
    parallel: Workspace, db: Session, engine: Engine
) -> None:
    stop = threading.Event()
    written = {"old": 0, "new": 0}

    def write(side: str, sql: str) -> None:
        while not stop.wait(0.005):
            run_sql(engine, sql)
            written[side] += 1

    by_old = "INSERT INTO old_jobs (payload, state, made) VALUES ('old', 'ok', now())"
    by_new = (
        "INSERT INTO tracking.job_tracking (payload, status, celery_task_id, completed_at) "
        "VALUES ('new', 'COMPLETED', 'c', now())"
    )
    old = threading.Thread(target=write, args=("old", by_old))
    new = threading.Thread(target=write, args=("new", by_new))
    with carrying(parallel):
        old.start()
        new.start()
        for _ in range(3):
            Cutover(parallel, db).run(ANY)
            seen = dict(written)
            until(lambda seen=seen: all(written[side] > seen[side] + 20 for side in seen))
            Rollback(parallel, db).run(accept_losses=True)
        Cutover(parallel, db).run(ANY)
        stop.set()
        old.join(10)
        new.join(10)
        until(lambda: not sync.lag(db, parallel).entries and not sync.lag(db, parallel, "new").entries)
    counts = db.rows("SELECT payload, count(*) AS rows FROM tracking.job_tracking WHERE payload IN ('old', "
                     "'new') GROUP BY 1 ORDER BY 1")  # fmt: skip

    assert counts == [{"payload": name, "rows": written[name]} for name in ("new", "old")]
    assert db.value("SELECT count(*) FROM old_jobs WHERE payload = 'old'") == written["old"]
    assert is_balanced(parallel, db)
