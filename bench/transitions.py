"""Rows per second of each step of a job's life, as a ratio to hand-written SQL in the same run.

Run it as ``.venv/bin/python bench/transitions.py [--rows N] [--rounds N] [--json FILE]``. In every round
tasktrail and its peer each get new rows of one table; who goes first alternates. The peer does the same
guarded work by prepared statements: same columns, same guards, same durability, same end state.

The peer hides its state guards from the planner (``status || ''``), so that only the primary key can serve
them. Without that, a plan made while few rows were PENDING scans them all; "claim from a backlog" shows it.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import psycopg
from kombu import Connection, Producer
from redis import Redis

from bench.report import Figure, Report
from bench.stand import DAY, TABLE, ReportTracking, Stand, console, environment, stand
from tasktrail import tracker
from tasktrail.tracker import Fence

BATCH = 1000
BATCHES = 3
BACKLOG = 20_000
SECONDS = 10.0
"""After so many seconds an operation gets no further round, unless it has had fewer than ``MIN_ROUNDS``."""
MIN_ROUNDS = 3
TITLE = "What each step of a row costs"
HOW = (
    "Medians of up to {rounds} rounds of {rows} rows, of 3,000 for enqueue_many and 30 from the backlog; "
    "interleaved, who goes first alternates. The raw side does the same guarded work by prepared statements."
)
WORKER = "bench@machine"
QUEUE = "celery"

INSERT = f"""
    INSERT INTO {TABLE} (customer_id, day, format, max_attempts, celery_task_id)
    VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (customer_id, day) DO NOTHING
    RETURNING id"""
INSERT_MANY = f"""
    INSERT INTO {TABLE} (customer_id, day, format, max_attempts, celery_task_id)
    SELECT * FROM unnest(%s::int[], %s::date[], %s::text[], %s::int[], %s::text[])
    ON CONFLICT (customer_id, day) DO NOTHING
    RETURNING id, celery_task_id"""
MARK_DISPATCHED = f"""
    UPDATE {TABLE} SET dispatched_at = clock_timestamp(), updated_at = now()
    WHERE id = ANY (%s) AND status || '' = 'PENDING'
    RETURNING id"""
CLAIM = f"""
    UPDATE {TABLE}
    SET status = 'PROCESSING', started_at = clock_timestamp(), heartbeat_at = clock_timestamp(),
        completed_at = NULL, updated_at = clock_timestamp(), celery_task_id = %s, worker = %s
    WHERE id = %s AND status || '' = 'PENDING' AND next_attempt_at <= clock_timestamp()
    RETURNING started_at, attempts, max_attempts, created_at, customer_id, day, format"""
COMPLETE = f"""
    UPDATE {TABLE}
    SET status = 'COMPLETED', completed_at = clock_timestamp(), error_message = %s,
        heartbeat_at = NULL, updated_at = clock_timestamp()
    WHERE id = %s AND status || '' = 'PROCESSING' AND attempts = %s
        AND celery_task_id IS NOT DISTINCT FROM %s AND started_at = %s
    RETURNING id"""

ENDED = f"""
    INSERT INTO {TABLE} (customer_id, day, format, status, completed_at)
    SELECT -n, %s, 'pdf', 'COMPLETED', now() FROM generate_series(1, %s) n"""

Work = Callable[[], int]
Round = dict[str, Work]


class Operations:
    """One method for each operation: it makes the rows of one round and returns the work to be timed."""

    def __init__(self, stand: Stand) -> None:
        self.engines = stand.trail.engines
        self.task = stand.task
        self.durable = stand.raw(durable=True).cursor()
        self.relaxed = stand.raw(durable=False).cursor()
        self.redis = Redis(unix_socket_path=stand.redis_socket)
        self.producer = Producer(Connection(stand.broker_url), auto_declare=False)
        self._customers = count(1)

    def backlog(self) -> None:
        """Leave many PENDING rows in a table whose statistics know of none, as after a quiet night."""
        self.durable.execute(f"ALTER TABLE {TABLE} SET (autovacuum_enabled = off)")
        self.durable.execute(ENDED, (DAY, BACKLOG))
        self.durable.execute(f"ANALYZE {TABLE}")
        self._pending(BACKLOG)

    def steady(self) -> None:
        """Give the table statistics that fit, as after some hours of work; they then stay as they are."""
        self._processing(BATCH)
        self.durable.execute(f"VACUUM ANALYZE {TABLE}")

    def enqueue_row(self, rows: int) -> Round:
        """The row alone."""

        def tasktrail() -> int:
            added = 0
            for fields in ours:
                with self.engines.pooled() as db:
                    added += tracker.create(db, ReportTracking, fields).id > 0
            return added

        ours, theirs = self._fields(rows), self._fields(rows)
        return {"tasktrail": tasktrail, "raw": lambda: sum(self._insert(row) is not None for row in theirs)}

    def enqueue(self, rows: int) -> Round:
        """The row, its message, and the mark that the message went out."""

        def tasktrail() -> int:
            return sum(self.task.enqueue(**fields).id > 0 for fields in ours)

        def raw() -> int:
            sent = 0
            for fields in theirs:
                celery_id, tracking_id = self._insert(fields)
                headers, body = message(celery_id, tracking_id)
                self.producer.publish(
                    body,
                    exchange="",
                    routing_key=QUEUE,
                    headers=headers,
                    correlation_id=celery_id,
                    serializer="json",
                )
                sent += self._mark([tracking_id])
            return sent

        ours, theirs = self._fields(rows), self._fields(rows)
        return {"tasktrail": tasktrail, "raw": raw}

    def enqueue_many_rows(self, rows: int) -> Round:
        """The rows alone, in batches."""

        def tasktrail() -> int:
            added = 0
            for batch in ours:
                with self.engines.pooled() as db:
                    added += len(tracker.create_many(db, ReportTracking, batch))
            return added

        ours, theirs = self._batches(rows), self._batches(rows)
        return {"tasktrail": tasktrail, "raw": lambda: sum(len(self._insert_many(batch)) for batch in theirs)}

    def enqueue_many(self, rows: int) -> Round:
        """The rows in batches, their messages in pipelines, and the marks."""

        def tasktrail() -> int:
            return self.task.enqueue_many(fields for batch in ours for fields in batch).dispatched

        def raw() -> int:
            sent = 0
            for batch in theirs:
                added = self._insert_many(batch)
                with self.redis.pipeline(transaction=False) as pipeline:
                    for tracking_id, celery_id in added:
                        pipeline.lpush(QUEUE, envelope(celery_id, tracking_id))
                    pipeline.execute()
                sent += self._mark([tracking_id for tracking_id, _ in added])
            return sent

        ours, theirs = self._batches(rows), self._batches(rows)
        return {"tasktrail": tasktrail, "raw": raw}

    def claim(self, rows: int) -> Round:
        """PENDING and due -> PROCESSING."""

        def tasktrail() -> int:
            claimed = 0
            for tracking_id, celery_id in ours:
                with self.engines.kept("relaxed") as db:
                    claim = tracker.claim(
                        db, ReportTracking, tracking_id, celery_task_id=celery_id, worker=WORKER
                    )
                claimed += claim.fence.tracking_id == tracking_id
            return claimed

        def raw() -> int:
            claimed = 0
            for tracking_id, celery_id in theirs:
                self.relaxed.execute(CLAIM, (celery_id, WORKER, tracking_id), prepare=True)
                claimed += self.relaxed.fetchone() is not None
            return claimed

        ours, theirs = self._pending(rows), self._pending(rows)
        return {"tasktrail": tasktrail, "raw": raw}

    def complete(self, rows: int) -> Round:
        """PROCESSING -> COMPLETED behind the fence."""

        def tasktrail() -> int:
            for fence in fences:
                with self.engines.kept() as db:
                    tracker.complete(db, ReportTracking, fence)
            return len(fences)

        def raw() -> int:
            completed = 0
            for tracking_id, attempts, celery_id, started_at in theirs:
                fence = (tracking_id, attempts, celery_id, started_at)
                self.durable.execute(COMPLETE, (None, *fence), prepare=True)
                completed += self.durable.fetchone() is not None
            return completed

        fences = [Fence(*row) for row in self._processing(rows)]
        theirs = self._processing(rows)
        return {"tasktrail": tasktrail, "raw": raw}

    def _insert(self, fields: dict[str, Any]) -> tuple[str, int]:
        celery_id = str(uuid4())
        self.durable.execute(INSERT, (*fields.values(), 3, celery_id), prepare=True)
        return celery_id, self._one(self.durable)

    def _insert_many(self, batch: list[dict[str, Any]]) -> list[tuple[int, str]]:
        columns = [[fields[name] for fields in batch] for name in ("customer_id", "day", "format")]
        ids = [str(uuid4()) for _ in batch]
        self.durable.execute(INSERT_MANY, (*columns, [3] * len(batch), ids), prepare=True)
        return self.durable.fetchall()

    def _mark(self, ids: list[int]) -> int:
        self.relaxed.execute(MARK_DISPATCHED, (ids,), prepare=True)
        return len(self.relaxed.fetchall())

    def _fields(self, rows: int) -> list[dict[str, Any]]:
        return [{"customer_id": next(self._customers), "day": DAY, "format": "pdf"} for _ in range(rows)]

    def _batches(self, rows: int) -> list[list[dict[str, Any]]]:
        return [self._fields(BATCH) for _ in range(max(1, rows // BATCH))]

    def _pending(self, rows: int) -> list[tuple[int, str]]:
        added = [row for batch in self._batches(max(rows, BATCH)) for row in self._insert_many(batch)]
        return added[:rows]

    def _processing(self, rows: int) -> list[tuple[Any, ...]]:
        ids = [tracking_id for tracking_id, _ in self._pending(rows)]
        self.durable.execute(
            f"UPDATE {TABLE} SET status = 'PROCESSING', started_at = clock_timestamp(), worker = %s,"
            " heartbeat_at = clock_timestamp() WHERE id = ANY (%s)"
            " RETURNING id, attempts, celery_task_id, started_at",
            (WORKER, ids),
        )
        return self.durable.fetchall()

    @staticmethod
    def _one(cursor: psycopg.Cursor[Any]) -> int:
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


def message(celery_id: str, tracking_id: int) -> tuple[dict[str, Any], list[Any]]:
    """Return headers and body of a message that a Celery worker accepts, with nothing that it can miss."""
    headers = {
        "lang": "py",
        "task": "bench.report",
        "id": celery_id,
        "root_id": celery_id,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
        "argsrepr": f"({tracking_id},)",
        "kwargsrepr": "{}",
        "ignore_result": True,
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return headers, [[tracking_id], {}, embed]


def envelope(celery_id: str, tracking_id: int) -> str:
    """Return the same message as kombu lays it into Redis."""
    headers, body = message(celery_id, tracking_id)
    return json.dumps(
        {
            "body": b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": celery_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )


def _sides() -> dict[str, list[float]]:
    return {"tasktrail": [], "raw": []}


@dataclass(frozen=True)
class Measured:
    """One operation, each side round by round.

    Attributes:
        operation: what was measured, and how durable it is.
        rows: how many rows each side had in a round.
        rates: rows per second.
        cpu: microseconds of CPU that this process, the client, took per row.
    """

    operation: str
    rows: int
    rates: dict[str, list[float]] = field(default_factory=_sides)
    cpu: dict[str, list[float]] = field(default_factory=_sides)

    @property
    def ratios(self) -> list[float]:
        """Tasktrail's rate in the peer's of the same round, ascending."""
        pairs = zip(self.rates["tasktrail"], self.rates["raw"], strict=True)
        return sorted(ours / raw for ours, raw in pairs)


def measured(operation: str, make: Callable[[int], Round], rows: int, rounds: int) -> Measured:
    """Run both sides in each round, the one that goes first alternating; the first round is a warm-up."""
    figure = Measured(operation, rows)
    deadline = time.monotonic() + SECONDS
    for number in range(rounds + 1):
        if number > MIN_ROUNDS and time.monotonic() > deadline:
            break
        works = list(make(rows).items())
        for side, work in works if number % 2 else reversed(works):
            gc.collect()
            cpu, start = time.process_time(), time.perf_counter()
            done = work()
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
            if done < rows:
                raise RuntimeError(f"{operation}, {side}: {done} of {rows} rows")
            if number:
                figure.rates[side].append(done / seconds)
                figure.cpu[side].append(cpu_seconds / done * 1e6)
    return figure


def figures(stand: Stand, rows: int, rounds: int) -> Iterator[Measured]:
    """Measure every operation; the queue is emptied after each, so that Redis stays small."""
    operations = Operations(stand)
    operations.backlog()
    few = max(10, rows // 10)
    yield measured(f"claim from a backlog of {BACKLOG:,} (relaxed)", operations.claim, few, rounds)
    operations.steady()
    many = BATCHES * BATCH
    for name, make, size in (
        ("claim (relaxed)", operations.claim, rows),
        ("complete (durable)", operations.complete, rows),
        ("enqueue: row (durable)", operations.enqueue_row, rows),
        ("enqueue: row, message, mark", operations.enqueue, rows),
        ("enqueue_many: rows (durable)", operations.enqueue_many_rows, many),
        ("enqueue_many: rows, messages, marks", operations.enqueue_many, many),
    ):
        yield measured(name, make, size, rounds)
        operations.redis.delete(QUEUE)


def reported(found: Measured) -> Figure:
    """Return it as a line of the report."""
    return Figure(
        found.operation,
        median(found.rates["tasktrail"]),
        "rows/s",
        "raw SQL",
        median(found.rates["raw"]),
        median(found.ratios),
    )


def main() -> None:
    """Measure, print, and write the JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=300, help="rows of each side in a round (300)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, besides one to warm up (7)")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    with stand() as running:
        report = Report(TITLE, HOW.format(**vars(options)), environment(running.database_url))
        with console.status("measuring"):
            found = list(figures(running, options.rows, options.rounds))
    report.add(*map(reported, found))
    console.print(report.table)
    for one in found:
        cpu = f"{median(one.cpu['tasktrail']):,.0f} : {median(one.cpu['raw']):,.0f} µs"
        spread = f"{one.ratios[0]:.2f} - {one.ratios[-1]:.2f} in {len(one.ratios)} rounds of {one.rows}"
        console.print(f"{one.operation}: ratio {spread}, CPU a row {cpu}", highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in report.settings.items()), highlight=False)
    if options.json:
        report.write(options.json)


if __name__ == "__main__":
    main()
