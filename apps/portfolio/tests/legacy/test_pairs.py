"""Where both systems did the same work, their outcomes are compared, for each of the four kinds of work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apps.portfolio.tests.legacy.test_plan import run_to_the_end_of_the_copy

from portfolio.legacy.plan import PLAN
from portfolio.models import TRACKING_SCHEMA
from tasktrail.engines import Engines
from tasktrail.migration import drift
from tasktrail.migration.parallel import begin, run_pass
from tasktrail.migration.session import Session
from tasktrail.migration.state import Phase
from tasktrail.migration.workspace import Workspace

NEW_SIDE = """
INSERT INTO etfs (id) VALUES ('E');
INSERT INTO tracking.exchange_rate_update_tracking
    (update_date, base_currency, target_currencies, source, status, attempts, completed_at, celery_task_id)
    VALUES ('2024-03-01', 'EUR', '{USD,CHF}', 'ecb', 'COMPLETED', 2, '2024-03-02 10:00Z', 'r');
INSERT INTO tracking.etf_creation_tracking (etf_id, status, attempts, completed_at, celery_task_id)
    VALUES ('E', 'COMPLETED', 2, '2024-03-01 12:00Z', 'c');
INSERT INTO tracking.etf_updates
    (id, etf_id, update_type, start_date, end_date, status, attempts, notes, completed_at, celery_task_id)
    VALUES (3000000000, 'E', 'full', '2024-01-01', '2024-03-01', 'COMPLETED', 1, 'examined',
        '2024-03-01 12:00Z', 'u');
INSERT INTO tracking.daily_update_tracking (update_date, update_type, status, data_found, celery_task_id)
    VALUES ('2024-03-01', 'exchange_rates', 'COMPLETED', TRUE, 'd'),
        ('2024-03-02', 'exchange_rates', 'COMPLETED', FALSE, 'e');
"""
OLD_SIDE = """
INSERT INTO task_status (task_type, status, resource_id, task_metadata, created_at, updated_at) VALUES
    ('exchange_rate_update', 'failed', 20240301, '{"date": "2024-03-01", "currencies": ["USD", "CHF"]}',
        '2024-03-01 09:00', '2024-03-01 09:30'),
    ('exchange_rate_update', 'completed', 20240301, '{"date": "2024-03-01", "currencies": ["USD", "CHF"]}',
        '2024-03-01 10:00', '2024-03-01 10:00'),
    ('etf_creation', 'success', 7, '{"etf_id": "E"}', '2024-03-01 10:00', '2024-03-01 10:00');
INSERT INTO etf_updates
    (etf_id, update_type, start_date, end_date, status, created_at, completed_at, retry_count) VALUES
    ('E', 'full', '2024-01-01', '2024-03-01', 'failed', '2024-03-01 08:00', '2024-03-01 08:30', 3),
    ('E', 'full', '2024-01-01', '2024-03-01', 'completed', '2024-03-01 10:00', '2024-03-01 10:30', 1);
INSERT INTO daily_update_tracking (date, update_type, attempted, data_found)
    VALUES ('2024-03-01', 'exchange_rates', TRUE, TRUE), ('2024-03-02', 'exchange_rates', TRUE, FALSE);
"""
DISAGREEMENTS = {
    "other currencies": (
        """UPDATE task_status SET task_metadata = '{"date": "2024-03-01", "currencies": ["USD"]}'""",
        ('exchange_rates ["2024-03-01", "EUR"]', "target_currencies", "{USD}", "{USD,CHF}"),
    ),
    "rates that the old side did not get": (
        "UPDATE task_status SET status = 'failed' WHERE status = 'completed'",
        ('exchange_rates ["2024-03-01", "EUR"]', "status", "FAILED", "COMPLETED"),
    ),
    "rates that came more than a day later": (
        (
            "UPDATE tracking.exchange_rate_update_tracking SET completed_at = '2024-03-02 10:00:01Z' "
            "WHERE celery_task_id = 'r'"
        ),
        (
            'exchange_rates ["2024-03-01", "EUR"]',
            "completed_at",
            "2024-03-01 10:00:00+00",
            "2024-03-02 10:00:01+00",
        ),
    ),
    "a creation that failed on the new side": (
        "UPDATE tracking.etf_creation_tracking SET status = 'FAILED' WHERE celery_task_id = 'c'",
        ("etf_creation E", "status", "COMPLETED", "FAILED"),
    ),
    "a creation that came more than a day later": (
        (
            "UPDATE tracking.etf_creation_tracking SET completed_at = '2024-03-02 10:00:01Z' "
            "WHERE celery_task_id = 'c'"
        ),
        ("etf_creation E", "completed_at", "2024-03-01 10:00:00+00", "2024-03-02 10:00:01+00"),
    ),
    "an update of an ETF that came more than a day later": (
        ("UPDATE tracking.etf_updates SET completed_at = '2024-03-02 10:30:01Z' WHERE celery_task_id = 'u'"),
        (
            'etf_updates ["E", "full", "2024-01-01", "2024-03-01"]',
            "completed_at",
            "2024-03-01 10:30:00+00",
            "2024-03-02 10:30:01+00",
        ),
    ),
    "an update of an ETF that failed on the new side": (
        "UPDATE tracking.etf_updates SET status = 'FAILED' WHERE celery_task_id = 'u'",
        ('etf_updates ["E", "full", "2024-01-01", "2024-03-01"]', "status", "COMPLETED", "FAILED"),
    ),
    "data that only the new side found": (
        "UPDATE tracking.daily_update_tracking SET data_found = TRUE WHERE celery_task_id = 'e'",
        ('daily_updates ["2024-03-02", "exchange_rates"]', "data_found", "false", "true"),
    ),
}


@pytest.fixture
def workspace(database_url: str) -> Workspace:
    return Workspace(PLAN, Engines(database_url), TRACKING_SCHEMA)


@pytest.fixture
def session(workspace: Workspace) -> Iterator[Session]:
    """A parallel run in which both systems did the same five pieces of work, each in its way."""
    with workspace.session("test") as session:
        run_to_the_end_of_the_copy(workspace, session)
        with session.transaction():
            workspace.journal.move(session, Phase.VERIFIED, step="verify")
        begin(session, workspace)
        session.run(NEW_SIDE)
        session.run(OLD_SIDE)
        yield session


def test_both_systems_agree_on_what_they_did_and_weekends_are_known(
    workspace: Workspace, session: Session
) -> None:
    found = run_pass(session, workspace)

    assert (found.stored.pairs, found.stored.only_new, found.stored.mismatches) == (5, 0, 0)
    assert found.warnings == ()
    (weekend,) = drift.entries(session, workspace)
    assert (weekend.known_as, weekend.difference.key) == (
        "day_without_data",
        'daily_updates ["2024-03-02", "exchange_rates"]',
    )


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_a_disagreement_is_a_mismatch(workspace: Workspace, session: Session, name: str) -> None:
    change, expected = DISAGREEMENTS[name]
    assert run_pass(session, workspace).stored.is_clean
    session.run(change)
    run_pass(session, workspace)

    assert [
        (one.difference.key, one.difference.column, one.difference.expected, one.difference.found)
        for one in drift.entries(session, workspace)
        if one.known_as is None
    ] == [expected]


def test_retries_of_one_side_only_are_shown_and_do_no_harm(workspace: Workspace, session: Session) -> None:
    session.run("UPDATE etf_updates SET retry_count = 0 WHERE status = 'completed'")
    stored = run_pass(session, workspace).stored

    assert (stored.mismatches, stored.known) == (0, 2)
    assert {one.known_as for one in drift.entries(session, workspace)} == {
        "day_without_data",
        "retry_of_one_side",
    }
