"""What the documentation finds in the database of the shop: rows in every state, healthy and not."""

from __future__ import annotations

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, MetaData

from tasktrail import schema

ROWS = """
INSERT INTO report_tracking
    (id, customer_id, status, created_at, dispatched_at, started_at, completed_at, heartbeat_at,
     next_attempt_at, attempts, max_attempts, error_message, worker, celery_task_id)
SELECT id, id, status, now() - age::interval, now() - sent::interval, now() - started::interval,
       now() - completed::interval, now() - beat::interval, now() - due::interval,
       attempts, 5, error, worker, 'message of report ' || id
FROM (VALUES
    (16, 'COMPLETED',  '3 h', '3 h', '3 h', '2 h', NULL, '3 h', 0, NULL, 'celery@web1/4711'),
    (17, 'FAILED',     '2 h', '2 h', '50 min', '49 min', NULL, '50 min', 5,
     'ReadTimeout: the mail server did not answer within 30 s', 'celery@web1/4711'),
    (18, 'PROCESSING', '2 h', '2 h', '100 min', NULL, '3 s', '2 h', 0, NULL, 'celery@web1/4712'),
    (19, 'PENDING',    '1 min', '1 min', NULL, NULL, NULL, '1 min', 0, NULL, NULL),
    (20, 'CANCELLED',  '1 h', '1 h', NULL, '55 min', NULL, '1 h', 0, 'the customer left', NULL),
    (21, 'FAILED',     '1 h', '1 h', '45 min', '44 min', NULL, '1 h', 5,
     'ReadTimeout: the mail server did not answer within 45 s', 'celery@web2/812'),
    (22, 'FAILED',     '1 h', '1 h', '40 min', '40 min', NULL, '1 h', 1,
     'NoSuchCustomer: there is no customer 22', 'celery@web2/812'),
    (23, 'PROCESSING', '1 h', '1 h', '30 min', NULL, '20 min', '1 h', 1,
     'LeaseExpired: no heartbeat for 60 s', 'celery@web3/99'),
    (24, 'PROCESSING', '2 d', NULL, '2 d', NULL, NULL, '2 d', 0, NULL, NULL),
    (25, 'PENDING',    '1 h', NULL, NULL, NULL, NULL, '1 h', 0, NULL, NULL),
    (26, 'PENDING',    '1 h', '1 h', '30 min', NULL, NULL, '1 h', 3,
     'WorkerLost: Worker exited prematurely: signal 9 (SIGKILL) Job: 7.', 'celery@web3/98'),
    (27, 'PENDING',    '1 h', NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL)
) AS rows (id, status, age, sent, started, completed, beat, due, attempts, error, worker)
"""
LOGS = """
UPDATE report_tracking SET attempt_log = (
    SELECT jsonb_agg(jsonb_build_object(
        'number', number, 'start', now() - interval '30 min', 'end', now() - interval '29 min',
        'outcome', CASE WHEN error_message ~ '^(WorkerLost|LeaseExpired)' THEN 'lost' ELSE 'error' END,
        'error', error_message, 'worker', worker))
    FROM generate_series(1, attempts) AS number)
WHERE attempts > 0
"""
EDGE = """
INSERT INTO tasktrail_prerequisites (domain, tracking_id, needs_domain, needs_id, if_unmet)
VALUES ('report', 27, 'report', 17, 'wait')
"""
COUNTERS = """
INSERT INTO tasktrail_counters (domain, name, value)
VALUES ('report', 'stale_writes', 2), ('report', 'lease_expiries', 1)
"""
LEGACY = """
CREATE TABLE old_reports (id serial PRIMARY KEY, customer int, state text, written_at timestamp NOT NULL)
"""
OLD_ROWS = """
INSERT INTO old_reports (customer, state, written_at)
VALUES (901, 'done', '2024-01-01 10:00'), (901, 'failed', '2024-01-01 09:00'), (902, 'Open', '2024-01-02'),
    (903, 'lost?', '2024-01-03')
"""
NUMBERS = "SELECT setval(pg_get_serial_sequence('report_tracking', 'id'), 100)"


def create_tables(engine: Engine, tables: MetaData) -> None:
    """Make the tables of the library and of the shop."""
    with engine.begin() as db:
        operations = Operations(MigrationContext.configure(db))
        for version in schema.VERSIONS:
            version.upgrade(operations)
        tables.create_all(db)


def add_rows(engine: Engine) -> None:
    """Add the rows that the pages speak of, as old as they say from now on."""
    with engine.begin() as db:
        for statement in (ROWS, LOGS, EDGE, COUNTERS, LEGACY, OLD_ROWS, NUMBERS):
            db.exec_driver_sql(statement)
