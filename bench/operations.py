"""Many failed rows started again by an operation, beside one raw UPDATE of the same rows.

Run it as ``.venv/bin/python -m bench.operations [--rows N]``. Halfway the process that works on the operation
is cut off, and another one takes it up. It ends with exit code 1 unless the operation counted exactly, and
every row was started again once.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import text
from sqlalchemy.orm import Session

from bench.report import Figure, Report
from bench.stand import SCHEMA, TABLE, Stand, console, environment, stand
from tasktrail.access import operations
from tasktrail.access.operations import Action, Operation
from tasktrail.schema import v6
from tasktrail.web.conductor import Conductor

HOW = (
    "An operation starts failed rows again in batches. Halfway its process is cut off, and another one goes "
    "on; it must count exactly, and each row be started once."
)
FAIL = (
    f"UPDATE {TABLE} SET status = 'FAILED', attempts = 3, max_attempts = 3, "
    "completed_at = now(), updated_at = now()"
)
RAW = (
    f"UPDATE {TABLE} SET status = 'PENDING', completed_at = NULL, next_attempt_at = now(), updated_at = now()"
)


def add_failed(running: Stand, rows: int) -> None:
    """Add FAILED rows."""
    with running.raw(durable=True) as db:
        db.execute(
            f"INSERT INTO {TABLE} (status, customer_id, day, format, attempts, completed_at, error_message) "
            "SELECT 'FAILED', n, '2026-01-01', 'pdf', 3, now(), 'TimeoutError: took ' || n || ' s' "
            f"FROM generate_series(1, {rows}) n"
        )
        db.execute(f"VACUUM ANALYZE {TABLE}")


def take_raw(running: Stand) -> float:
    """Update all rows at once, put them back, and return the seconds of the first."""
    with running.raw(durable=True) as db:
        began = time.monotonic()
        db.execute(RAW)
        seconds = time.monotonic() - began
        db.execute(FAIL)
        db.execute(f"VACUUM ANALYZE {TABLE}")
    return seconds


def begin(running: Stand, rows: int) -> int:
    """Put the operation down."""
    with Session(running.trail.engines.sync) as db, db.begin():
        return operations.begin(
            db, SCHEMA, domain="report", action=Action.RETRY, reason=None, rate=0, who="bench",
            chosen={"status": ["FAILED"], "error": ["took"]}, expected=rows,
        )  # fmt: skip


def read(running: Stand, number: int) -> Operation:
    """Return how far it has come."""
    with running.trail.engines.pooled() as db:
        found = operations.read(db, SCHEMA, number)
    assert found is not None
    return found


def work_until_half(running: Stand, number: int, rows: int) -> None:
    """Work on it in one process, and cut that off halfway."""
    first = Conductor(running.trail)
    thread = threading.Thread(target=first.work)
    thread.start()
    while read(running, number).done < rows // 2:
        time.sleep(0.01)
    first.close()  # what it holds stays held until its lease has run out
    thread.join()
    with running.trail.engines.pooled() as db:
        later = f"UPDATE {SCHEMA}.tasktrail_operations SET heartbeat_at = now() - interval '1 h'"
        db.execute(text(later))


def main() -> int:
    """Start many rows again, and say how fast and how exactly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="failed rows (100000)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    rows = options.rows
    with stand() as running:
        with running.trail.engines.sync.begin() as db:
            v6.upgrade(Operations(MigrationContext.configure(db)), schema=SCHEMA)
        add_failed(running, rows)
        raw = take_raw(running)
        number = begin(running, rows)
        began = time.monotonic()
        work_until_half(running, number, rows)
        half = read(running, number)
        Conductor(running.trail).work()
        seconds = time.monotonic() - began
        done = read(running, number)
        with running.raw(durable=True) as raw_db:
            states = raw_db.execute(
                f"SELECT status, max_attempts, count(*) FROM {TABLE} GROUP BY 1, 2"
            ).fetchall()
        setting = environment(running.database_url)
    report = Report("Bulk retry", HOW, setting)
    is_exact = done.done == rows and len(states) == 1 and states[0][2] == rows
    report.add(
        Figure(
            f"{rows:,} failed rows started again, messages sent",
            seconds,
            "s",
            "one raw UPDATE, no message",
            raw,
            seconds / raw,
        ),
        Figure("rows counted", done.done, "rows", target=f"{rows:,}", met=is_exact),
    )
    console.print(report.table)
    console.print(", ".join(f"{name} {value}" for name, value in setting.items()), highlight=False)
    console.print(f"cut off at {half.done:,}; done {done.done:,}, {done.state}; rows now: {states}")
    if options.json:
        report.write(options.json)
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
