"""Memory of a producer that enqueues a long generator: it must stay flat.

Run it as ``.venv/bin/python bench/producer_memory.py [--rows N] [--limit MB]``. It reads the process's
resident memory every 100,000 rows, and ends with exit code 1 if that grew by more than the limit after the
first 100,000. A thread trims the queue meanwhile, so that Redis does not fill the machine's memory instead.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from redis import Redis
from rich.table import Table

from bench.report import Figure, Report
from bench.stand import DAY, TABLE, console, environment, stand

HOW = "`enqueue_many` is given a generator of {rows:,} rows; resident memory is read every 100,000 rows."
EVERY = 100_000
QUEUE = "celery"
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Reading:
    """The producer at one moment.

    Attributes:
        rows: how many rows it has produced.
        seconds: how long that took.
        megabytes: its resident memory.
    """

    rows: int
    seconds: float
    megabytes: float


class Producer:
    """Makes rows, and looks at its own process while it does.

    Attributes:
        readings: one for the start and one for every ``EVERY`` rows.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.readings: list[Reading] = []
        self._process = psutil.Process()
        self._start = time.monotonic()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.rows):
            if number % EVERY == 0:
                self.read(number)
            yield {"customer_id": number, "day": DAY, "format": "pdf"}

    def read(self, rows: int) -> None:
        """Take a reading."""
        megabytes = self._process.memory_info().rss / MEGABYTE
        reading = Reading(rows, time.monotonic() - self._start, megabytes)
        self.readings.append(reading)
        console.print(f"{rows:>10,} rows {reading.seconds:7.1f} s {megabytes:8.1f} MB", highlight=False)


@contextmanager
def trimmed_queue(redis_socket: str, seconds: float = 0.5) -> Iterator[None]:
    """Keep the newest messages only, on a thread of its own."""
    ended = threading.Event()

    def trim() -> None:
        with Redis(unix_socket_path=redis_socket) as redis:
            while not ended.wait(seconds):
                redis.ltrim(QUEUE, 0, 999)

    thread = threading.Thread(target=trim)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def growth(readings: list[Reading]) -> float:
    """Return by how many megabytes the memory rose above the first reading that had work behind it."""
    after_warm_up = [reading.megabytes for reading in readings if reading.rows > 0]
    return max(after_warm_up) - after_warm_up[0]


def table(readings: list[Reading]) -> Table:
    """Lay the readings out."""
    shown = Table(title="memory of the producer")
    for heading in ("rows", "rows/s", "resident MB", "since the one before"):
        shown.add_column(heading, justify="right")
    for before, reading in zip([readings[0], *readings], readings, strict=False):
        seconds = reading.seconds - before.seconds
        shown.add_row(
            f"{reading.rows:,}",
            f"{(reading.rows - before.rows) / seconds:,.0f}" if seconds else "",
            f"{reading.megabytes:.1f}",
            f"{reading.megabytes - before.megabytes:+.1f}",
        )
    return shown


def main() -> int:
    """Enqueue, and say whether the memory stayed flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to enqueue (1000000)")
    parser.add_argument("--limit", type=float, default=10.0, help="growth allowed, in MB (10)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    producer = Producer(options.rows)
    with stand() as running:
        with trimmed_queue(running.redis_socket):
            told = running.task.enqueue_many(producer)
        producer.read(options.rows)
        with running.trail.engines.pooled() as db:
            stored = db.exec_driver_sql(f"SELECT count(*) FROM {TABLE}").scalar_one()
        setting = environment(running.database_url)
    grown = growth(producer.readings)
    console.print(table(producer.readings))
    console.print(", ".join(f"{name} {value}" for name, value in setting.items()), highlight=False)
    console.print(f"created {told.created:,}, dispatched {told.dispatched:,}, stored {stored:,}")
    console.print(f"growth after the first {EVERY:,} rows: {grown:.1f} MB; allowed: {options.limit:g} MB")
    if options.json:
        report = Report("Memory of a producer", HOW.format(rows=options.rows), setting)
        target = f"at most {options.limit:g} MB"
        report.add(
            Figure("memory after the last row", producer.readings[-1].megabytes, "MB"),
            Figure("growth since row 100,000", grown, "MB", target=target, met=grown <= options.limit),
        )
        report.write(options.json)
    return 0 if grown <= options.limit and stored == told.created == options.rows else 1


if __name__ == "__main__":
    sys.exit(main())
