"""The judge is judged: each rule catches what violates it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine

from conftest import MakeDatabase
from tests.chaos import invariants
from tests.chaos.domains import create_tables
from tests.chaos.healthy import ROLLED_BACK, break_it, populate
from tests.chaos.invariants import RULES, violations

JOB = "tracking.chaos_job"

BREAKS = [
    ("every_row_has_ended", f"UPDATE {JOB} SET status = 'PENDING', completed_at = NULL WHERE kind = 'plain'"),
    ("every_row_has_ended", f"UPDATE {JOB} SET status = 'PROCESSING' WHERE kind = 'gives up'"),
    ("no_row_is_lost", f"DELETE FROM {JOB} WHERE kind = 'plain'"),
    ("no_row_is_lost", f"UPDATE {JOB} SET key = 'another' WHERE kind = 'plain'"),
    ("no_row_was_not_ordered", f"INSERT INTO {JOB} (key, status) VALUES ('nobody', 'CANCELLED')"),
    ("no_row_was_not_ordered", f"INSERT INTO {JOB} (key, status) VALUES ('rolled back', 'CANCELLED')"),
    ("no_row_was_not_ordered", "INSERT INTO tracking.chaos_coroutine (key) VALUES ('chaos_job quick')"),
    (
        "rolled_back_rows_sent_no_message",
        (
            "INSERT INTO chaos.evidence (domain, tracking_id, event, at, pid)"
            f" VALUES ('chaos_job', {ROLLED_BACK}, 'message', now(), 1)"
        ),
    ),
    (
        "each_side_effect_happened_once",
        (
            "INSERT INTO chaos.effect (domain, tracking_id, key, claim, pid)"
            " SELECT domain, tracking_id, key, claim, 2 FROM chaos.effect LIMIT 1"
        ),
    ),
    ("each_side_effect_happened_once", "DELETE FROM chaos.effect WHERE domain = 'chaos_coroutine'"),
    ("each_side_effect_happened_once", f"UPDATE {JOB} SET status = 'FAILED' WHERE kind = 'quick'"),
    ("each_side_effect_happened_once", "UPDATE chaos.effect SET tracking_id = 12345"),
    (
        "side_effects_are_of_the_attempt_that_completed",
        "UPDATE chaos.effect SET claim = claim - interval '1 ms' WHERE domain = 'chaos_coroutine'",
    ),
    ("attempts_equal_the_failures_logged", f"UPDATE {JOB} SET attempts = 2 WHERE kind = 'gives up'"),
    ("attempts_equal_the_failures_logged", f"UPDATE {JOB} SET attempts = 0 WHERE kind = 'quick'"),
    (
        "attempts_equal_the_failures_logged",
        f"UPDATE {JOB} SET attempt_log = jsonb_set(attempt_log, '{{0,number}}', '2') WHERE kind = 'gives up'",
    ),
    (
        "attempts_equal_the_failures_logged",
        f"UPDATE {JOB} SET attempt_log = attempt_log || attempt_log WHERE kind = 'gives up'",
    ),
    (
        "logged_claims_do_not_overlap",
        f"UPDATE {JOB} SET started_at = (attempt_log -> 0 ->> 'start')::timestamptz WHERE kind = 'quick'",
    ),
    ("logged_claims_do_not_overlap", f"UPDATE {JOB} SET completed_at = created_at WHERE kind = 'plain'"),
    (
        "rows_moved_as_the_states_allow",
        "UPDATE chaos.history SET was = 'COMPLETED' WHERE became = 'PROCESSING'",
    ),
    (
        "rows_moved_as_the_states_allow",
        "UPDATE chaos.history SET was = 'PROCESSING' WHERE became = 'PROCESSING'",
    ),
    ("rows_moved_as_the_states_allow", f"UPDATE {JOB} SET started_at = now() WHERE kind = 'plain'"),
    ("no_row_started_before_it_was_due", "UPDATE chaos.history SET due = claim_became + interval '1 ms'"),
    ("no_row_started_before_it_was_due", "UPDATE chaos.history SET due = NULL WHERE became = 'PROCESSING'"),
    (
        "each_claim_ran_one_body",
        (
            "INSERT INTO chaos.evidence (domain, tracking_id, event, at, pid, claim)"
            " SELECT domain, tracking_id, event, at, 2, claim FROM chaos.evidence"
            " WHERE event = 'start' LIMIT 1"
        ),
    ),
    (
        "each_claim_ran_one_body",
        "UPDATE chaos.evidence SET claim = claim + interval '1 ms' WHERE event = 'start'",
    ),
    (
        "no_body_began_while_another_owned_the_row",
        "UPDATE chaos.history SET at = at + interval '1 hour' WHERE was = 'PROCESSING'",
    ),
    (
        "no_body_began_while_another_owned_the_row",
        "DELETE FROM chaos.history WHERE was = 'PROCESSING' AND became = 'PENDING'",
    ),
    ("jobs_ended_as_they_were_told", f"UPDATE {JOB} SET kind = 'quick' WHERE kind = 'always fails'"),
    ("jobs_ended_as_they_were_told", f"UPDATE {JOB} SET kind = 'always fails' WHERE kind = 'plain'"),
    ("jobs_ended_as_they_were_told", f"UPDATE {JOB} SET error_message = 'no' WHERE kind = 'gives up'"),
    ("jobs_ended_as_they_were_told", f"UPDATE {JOB} SET failures = 2 WHERE kind = 'fails first'"),
    ("jobs_ended_as_they_were_told", f"UPDATE {JOB} SET max_attempts = 2 WHERE kind = 'always fails'"),
    ("attempts_failed_as_they_were_told", f"UPDATE {JOB} SET failures = 0 WHERE kind = 'fails first'"),
    (
        "attempts_failed_as_they_were_told",
        (
            f"UPDATE {JOB} SET attempt_log = jsonb_set(attempt_log, '{{0,error}}', '\"ValueError: no\"')"
            " WHERE kind = 'fails first'"
        ),
    ),
    (
        "database_errors_have_a_cause",
        (
            f"UPDATE {JOB} SET attempt_log = jsonb_set(attempt_log, '{{0,error}}', '\"InterfaceError: no\"')"
            " WHERE kind = 'fails first'"
        ),
    ),
    ("cancellations_hold", "DELETE FROM chaos.cancelled"),
    ("cancellations_hold", f"UPDATE {JOB} SET error_message = 'another' WHERE status = 'CANCELLED'"),
    (
        "cancellations_hold",
        "UPDATE chaos.cancelled SET tracking_id = (SELECT id FROM tracking.chaos_job WHERE kind = 'plain')",
    ),
    (
        "prerequisites_were_waited_for",
        "UPDATE tracking.chaos_coroutine SET started_at = created_at - interval '1 hour'",
    ),
    ("prerequisites_were_waited_for", f"UPDATE {JOB} SET status = 'FAILED' WHERE kind = 'quick'"),
    (
        "prerequisites_were_waited_for",
        "UPDATE tracking.chaos_coroutine SET status = 'CANCELLED', error_message = 'prerequisite is FAILED'",
    ),
    ("columns_tell_the_same_as_the_state", f"UPDATE {JOB} SET completed_at = NULL WHERE kind = 'plain'"),
    ("columns_tell_the_same_as_the_state", f"UPDATE {JOB} SET heartbeat_at = now() WHERE kind = 'plain'"),
    ("columns_tell_the_same_as_the_state", f"UPDATE {JOB} SET error_message = 'no' WHERE kind = 'quick'"),
    ("columns_tell_the_same_as_the_state", f"UPDATE {JOB} SET error_message = 'no' WHERE kind = 'gives up'"),
    ("columns_tell_the_same_as_the_state", f"UPDATE {JOB} SET done = 4 WHERE kind = 'progress'"),
]


@pytest.fixture(scope="module")
def healthy_template(make_database: MakeDatabase) -> str:
    """Name of a database with a population of which every rule holds."""
    engine = create_engine(make_database())
    create_tables(engine)
    populate(engine)
    engine.dispose()
    return engine.url.database or ""


@pytest.fixture
def healthy(make_database: MakeDatabase, healthy_template: str) -> Iterator[Engine]:
    """A copy of that database."""
    engine = create_engine(make_database(healthy_template))
    yield engine
    engine.dispose()


def test_a_run_that_went_well_violates_nothing(healthy: Engine) -> None:
    with healthy.connect() as db:
        assert violations(db) == {}


@pytest.mark.parametrize(("rule", "statement"), BREAKS)
def test_a_rule_catches_what_violates_it(healthy: Engine, rule: str, statement: str) -> None:
    break_it(healthy, statement)

    with healthy.connect() as db:
        assert rule in violations(db)


def test_each_rule_is_broken_by_a_test() -> None:
    assert {rule for rule, _ in BREAKS} == {rule.__name__ for rule in RULES}


def test_a_database_error_while_the_database_was_away_is_excused(healthy: Engine) -> None:
    outage = "jsonb_set(attempt_log, '{0,error}', '\"DatabaseUnavailable: no\"')"
    break_it(healthy, f"UPDATE {JOB} SET attempt_log = {outage} WHERE kind = 'fails first'")
    strike_postgres(healthy, "restart PostgreSQL fast")

    with healthy.connect() as db:
        assert invariants.database_errors_have_a_cause(db) == []
        assert invariants.attempts_failed_as_they_were_told(db) == []


def test_a_claim_that_a_crash_of_the_database_lost_is_excused(healthy: Engine) -> None:
    break_it(healthy, "DELETE FROM chaos.history WHERE domain = 'chaos_coroutine'")
    strike_postgres(healthy, "restart PostgreSQL immediately")

    with healthy.connect() as db:
        assert invariants.each_claim_ran_one_body(db) == []


def strike_postgres(engine: Engine, blow: str) -> None:
    """Pretend that PostgreSQL was away for the last hour."""
    hour = "at = now() - interval '1 hour', until = now()"
    break_it(engine, f"UPDATE chaos.struck SET blow = '{blow}', {hour}")
