"""No-op jobs per second through two worker processes: bare Celery, a result backend, the plan's way, tracked.

Every round runs each variant once, on a queue of its own filled beforehand, with the same worker settings
(prefork 2, prefetch 8, acks_late) and a durable PostgreSQL. Quoted are medians over the rounds, and the ratio
to bare Celery of the same round.

    python -m bench.tracked_vs_bare [--jobs N] [--rounds N] [--no-rabbitmq] [--json FILE]

RabbitMQ is measured where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from celery import Celery
from rich.table import Table
from sqlalchemy import create_engine, text

from bench.drain_app import SLOTS, Tally, make
from bench.stand import DAY, Stand, console, environment, stand
from tasktrail.settings import sqlalchemy_url
from tests.rabbitmq import PROGRAM, RabbitMQ

VARIANTS = ("bare", "result backend", "plan's way", "tracked")
DEADLINE = 300.0


@dataclass(frozen=True)
class Lane:
    """One variant on a queue and a tally of its own, with an empty table."""

    variant: str
    app: Celery
    task: Any
    tally: Tally
    environment: dict[str, str]
    log: Path

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker of two processes for as long as the block takes."""
        command = [
            *(sys.executable, "-m", "celery", "--app", "bench.drain_app", "worker"),
            *("--pool=prefork", "--concurrency=2", "--loglevel=WARNING"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        with self.log.open("ab") as log:
            worker = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        try:
            yield worker
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)

    def fill(self, place: Stand, jobs: int) -> None:
        """Put jobs into the queue, with their rows."""
        if self.variant == "tracked":
            self.task.enqueue_many(
                {"customer_id": number, "day": DAY, "format": "pdf"} for number in range(jobs)
            )
        else:
            _execute(
                place,
                "INSERT INTO tracking.report_tracking (customer_id, day, format) "
                f"SELECT n, '2026-01-01', 'pdf' FROM generate_series(1, {jobs}) n",
            )
            with self.app.producer_or_acquire() as producer, producer.batch(max_size=1000):
                for number in range(1, jobs + 1):
                    self.task.apply_async((number,), producer=producer)
        _execute(place, "VACUUM ANALYZE tracking.report_tracking")


@contextmanager
def lane(place: Stand, variant: str, broker_url: str, folder: Path) -> Iterator[Lane]:
    """Set a variant up."""
    queue = f"{variant.replace(' ', '-').replace(chr(39), '')}-{time.monotonic_ns()}"
    path = folder / queue
    path.write_bytes(bytes(SLOTS * 8))
    tally = Tally(str(path))
    _execute(place, "TRUNCATE tracking.report_tracking RESTART IDENTITY")
    app, task = make(variant, place.database_url, broker_url, tally, queue)
    variables = {
        "BENCH_VARIANT": variant,
        "BENCH_DATABASE_URL": place.database_url,
        "BENCH_BROKER_URL": broker_url,
        "BENCH_TALLY": str(path),
        "BENCH_QUEUE": queue,
    }
    yield Lane(variant, app, task, tally, {**os.environ, **variables}, folder / "worker.log")
    app.close()


def drained_per_second(place: Stand, variant: str, broker_url: str, jobs: int, folder: Path) -> float:
    """Return the jobs per second of one drained queue, from the first tenth to the last job."""
    with lane(place, variant, broker_url, folder) as found:
        found.fill(place, jobs)
        with found.worker() as worker:
            begun, first = 0.0, jobs // 10
            deadline = time.monotonic() + DEADLINE
            while (done := found.tally.total()) < jobs:
                now = time.monotonic()
                if not begun and done >= first:
                    begun, first = now, done
                if now > deadline or worker.poll() is not None:
                    raise SystemExit(
                        f"{variant}: {done} of {jobs} jobs done\n{found.log.read_text()[-2000:]}"
                    )
                time.sleep(0.002)
            return (jobs - first) / (time.monotonic() - begun)


def one_at_a_time(place: Stand, variant: str, broker_url: str, jobs: int, folder: Path) -> list[float]:
    """Return the milliseconds from sending a job to the end of its body, for one job after the other."""
    taken: list[float] = []
    with lane(place, variant, broker_url, folder) as found, found.worker():
        for number in range(jobs):
            begun = time.perf_counter()
            if variant == "tracked":
                found.task.enqueue(customer_id=number, day=DAY, format="pdf")
            else:
                found.task.apply_async((number,))
            while found.tally.total() <= number:
                if time.perf_counter() - begun > DEADLINE:
                    raise SystemExit(f"{variant}: job {number} did not end")
                time.sleep(0.0002)  # the watcher must not take one of the cores from those it watches
            taken.append((time.perf_counter() - begun) * 1000)
    return taken[jobs // 10 :]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-rabbitmq", action="store_true", help="Redis only")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="only these, besides bare")
    parser.add_argument("--no-low-load", action="store_true")
    options = parser.parse_args()
    variants = [name for name in VARIANTS if not options.variant or name in ("bare", *options.variant)]
    with tempfile.TemporaryDirectory() as temporary, stand() as place, ExitStack() as servers:
        folder = Path(temporary)
        broker_urls = [place.broker_url]
        if PROGRAM.exists() and not options.no_rabbitmq:
            broker_urls.append(servers.enter_context(RabbitMQ(folder / "rabbitmq")).url)
        figures: dict[str, Any] = {"environment": environment(place.database_url), "brokers": {}}
        for broker_url in broker_urls:
            rates: dict[str, list[float]] = {variant: [] for variant in variants}
            for _ in range(options.rounds):
                for variant in variants:
                    rate = drained_per_second(place, variant, broker_url, options.jobs, folder)
                    rates[variant].append(rate)
            name = broker_url.partition(":")[0].partition("+")[0]
            figures["brokers"][name] = _show(name, rates, options.jobs)
        if not options.no_low_load:
            figures["low load"] = _show_low_load(place, folder)
    for key, value in figures["environment"].items():
        console.print(f"[dim]{key}: {value}[/]")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def _show(broker: str, rates: dict[str, list[float]], jobs: int) -> dict[str, Any]:
    table = Table(title=f"{broker}: {jobs} no-op jobs, 2 processes, {len(rates['bare'])} rounds")
    for heading in ("variant", "jobs/s (median)", "of bare (median)", "min … max of bare"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    shown: dict[str, Any] = {}
    for variant, measured in rates.items():
        ratios = [rate / bare for rate, bare in zip(measured, rates["bare"], strict=True)]
        shown[variant] = {"jobs_per_second": median(measured), "of_bare": median(ratios)}
        table.add_row(
            variant,
            f"{median(measured):,.0f}",
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f} … {max(ratios):.2f}",
        )
    console.print(table)
    return shown


def _show_low_load(place: Stand, folder: Path) -> dict[str, Any]:
    table = Table(title="one job at a time on Redis, from sending to the end of the body, in ms")
    for heading in ("variant", "median", "p95"):
        table.add_column(heading)
    shown: dict[str, Any] = {}
    for variant in ("bare", "tracked"):
        taken = one_at_a_time(place, variant, place.broker_url, 300, folder)
        p95 = quantiles(taken, n=20)[-1]
        shown[variant] = {"median_ms": median(taken), "p95_ms": p95}
        table.add_row(variant, f"{median(taken):.2f}", f"{p95:.2f}")
    console.print(table)
    return shown


def _execute(place: Stand, statement: str) -> None:
    engine = create_engine(sqlalchemy_url(place.database_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text(statement))
    engine.dispose()


if __name__ == "__main__":
    main()
