"""No-op jobs per second through two worker processes: bare Celery, a result backend, the plan's way, tracked.

Every round runs each variant once, on a queue of its own filled beforehand, with the same worker settings
(prefork 2, prefetch 8, acks_late) and a durable PostgreSQL; and, where they are installed, two queues that
need no broker, procrastinate and PgQueuer, with two worker processes of eight jobs at a time. Quoted are
medians over the rounds, and the ratio to bare Celery of the same round.

    python -m bench.tracked_vs_bare [--jobs N] [--rounds N] [--no-rabbitmq] [--json FILE]

RabbitMQ is measured where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from celery import Celery
from sqlalchemy import create_engine, text

from bench.drain_app import SLOTS, Tally, make
from bench.queue_peers import PEERS, Peer
from bench.report import Figure, Report
from bench.stand import DAY, Stand, console, environment, stand
from tasktrail.settings import sqlalchemy_url
from tests.rabbitmq import PROGRAM, RabbitMQ

VARIANTS = ("bare", "result backend", "plan's way", "tracked")
BROKERS = {"redis": "Redis", "amqp": "RabbitMQ"}
DEADLINE = 300.0
TITLE = "What tracking costs a job"
HOW = (
    "{jobs} no-op jobs through two worker processes, {rounds} rounds, each queue filled beforehand; the "
    "ratio is the median of the rounds'. The plan's way is a row that the ORM reads and commits twice."
)


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
    """Return the jobs per second of one drained queue."""
    with lane(place, variant, broker_url, folder) as found:
        found.fill(place, jobs)
        with found.worker() as worker:
            return watched(found.tally, [worker], jobs, found.log)


def drained_by_peer(place: Stand, peer: Peer, jobs: int, folder: Path) -> float:
    """Return the jobs per second of a library that keeps its queue in PostgreSQL."""
    asyncio.run(peer.fill(place.database_url, jobs))
    _execute(place, "VACUUM ANALYZE")
    path, log = folder / f"{peer.module}-{time.monotonic_ns()}", folder / f"{peer.module}.log"
    path.write_bytes(bytes(SLOTS * 8))
    command = [sys.executable, "-m", "bench.queue_peers", peer.name, place.database_url, str(path)]
    with log.open("ab") as said:
        workers = [subprocess.Popen(command, stdout=said, stderr=said) for _ in range(2)]
    try:
        return watched(Tally(str(path)), workers, jobs, log)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait(60)


def watched(tally: Tally, workers: Sequence[subprocess.Popen[bytes]], jobs: int, log: Path) -> float:
    """Return the jobs per second of a queue, from the first tenth to the last job."""
    begun, first = 0.0, jobs // 10
    deadline = time.monotonic() + DEADLINE
    while (done := tally.total()) < jobs:
        now = time.monotonic()
        if not begun and done >= first:
            begun, first = now, done
        if now > deadline or any(worker.poll() is not None for worker in workers):
            raise SystemExit(f"{done} of {jobs} jobs done\n{log.read_text()[-2000:]}")
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
    peers = [peer for peer in PEERS if peer.is_installed and not options.variant]
    with tempfile.TemporaryDirectory() as temporary, stand() as place, ExitStack() as servers:
        folder = Path(temporary)
        for peer in peers:
            asyncio.run(peer.install(place.database_url))
        versions = {peer.name: peer.version for peer in peers}
        report = Report(TITLE, HOW.format(**vars(options)), {**environment(place.database_url), **versions})
        broker_urls = [place.broker_url]
        if PROGRAM.exists() and not options.no_rabbitmq:
            broker_urls.append(servers.enter_context(RabbitMQ(folder / "rabbitmq")).url)
        for broker_url in broker_urls:
            name = BROKERS[broker_url.partition(":")[0].partition("+")[0]]
            rates: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for variant in variants:
                    rate = drained_per_second(place, variant, broker_url, options.jobs, folder)
                    rates.setdefault(f"{variant}, {name}", []).append(rate)
                for peer in peers if broker_url == place.broker_url else ():
                    rate = drained_by_peer(place, peer, options.jobs, folder)
                    rates.setdefault(f"{peer.name}, no broker", []).append(rate)
            report.add(*_drained(rates, f"bare, {name}"))
        if not options.no_low_load:
            report.add(*_low_load(place, folder))
    console.print(report.table)
    for key, value in report.settings.items():
        console.print(f"[dim]{key}: {value}[/]")
    if options.json:
        report.write(options.json)


def _drained(rates: dict[str, list[float]], bare: str) -> Iterator[Figure]:
    for variant, measured in rates.items():
        if variant == bare:
            continue
        ratio = median(rate / of_bare for rate, of_bare in zip(measured, rates[bare], strict=True))
        yield Figure(f"jobs: {variant}", median(measured), "/s", bare, median(rates[bare]), ratio)


def _low_load(place: Stand, folder: Path) -> Iterator[Figure]:
    taken = {name: one_at_a_time(place, name, place.broker_url, 300, folder) for name in ("bare", "tracked")}
    for what, of in (("median", median), ("p95", lambda times: quantiles(times, n=20)[-1])):
        ours, bare = of(taken["tracked"]), of(taken["bare"])
        yield Figure(f"one job at a time, {what}: tracked, Redis", ours, "ms", "bare", bare, ours / bare)


def _execute(place: Stand, statement: str) -> None:
    engine = create_engine(sqlalchemy_url(place.database_url), isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text(statement))
    engine.dispose()


if __name__ == "__main__":
    main()
