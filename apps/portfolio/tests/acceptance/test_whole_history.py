"""The whole bundled history, five ETFs on 2,264 days, through a live worker; and a second time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from apps.portfolio.tests.settling import add_rates, rows
from sqlalchemy import Engine, text

from portfolio.etfs.request import UpdateType
from portfolio.etfs.sources import BundledPrices
from portfolio.etfs.tracking import creation_fields, update_fields
from portfolio.main import Application
from portfolio.models import Etf, EtfCreationTracking, EtfUpdateTracking
from portfolio.process import running, worker_command, worker_environment
from tasktrail import Status
from tests.waiting import until

SYMBOLS = BundledPrices().symbols()
DAYS = 2264
LIMIT = 30.0
"""Seconds for all of it."""

MEGABYTE = 1024 * 1024
MEMORY = 250 * MEGABYTE
"""What one process of the worker may take at the most; about 110 MB of it is there before the first job."""


@pytest.fixture
def application(make_application: Any, monkeypatch: pytest.MonkeyPatch) -> Application:
    """The application as the worker builds it, on the test's database, with a queue of its own."""
    application: Application = make_application()
    application.celery.conf.task_default_queue = "portfolio"  # the worker is an ordinary one
    return application


@contextmanager
def worker(application: Application, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker with two processes for as long as the block takes."""
    command = worker_command("portfolio.worker", 2, "prefork", "INFO")
    log = folder / "worker.log"
    with running(command, worker_environment(application.trail.settings), log) as process:
        until(lambda: b" ready." in log.read_bytes() or process.poll() is not None, seconds=90)
        assert process.poll() is None, log.read_text()
        yield process


def all_completed(engine: Engine, model: Any, count: int) -> bool:
    found = [Status(row.status) for row in rows(engine, model)]
    assert Status.FAILED not in found, [row.error_message for row in rows(engine, model)]
    return found.count(Status.COMPLETED) == count


def largest_process(process: subprocess.Popen[bytes]) -> int:
    """Return how much memory the largest process of a worker took at the most, in bytes."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    peaks = []
    for member in family:
        status = Path(f"/proc/{member.pid}/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
    return max(peaks)


def summary(engine: Engine, what: str) -> Any:
    with engine.connect() as db:
        return db.execute(text(what)).one()


PRICES = """
SELECT count(*), count(DISTINCT etf_id), min(date), max(date), count(*) FILTER (WHERE price = round(
    original_price / (SELECT rate FROM exchange_rates r WHERE currency = 'USD' AND r.date <= p.date
                      ORDER BY r.date DESC LIMIT 1), 6))
FROM etf_prices p
"""
WRITTEN = "SELECT count(*), md5(string_agg(concat(ctid, ' ', xmin), ',' ORDER BY ctid)) FROM etf_prices"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the memory of processes from /proc")
def test_the_whole_history_of_five_etfs_comes_in_within_seconds_and_a_second_time_changes_nothing(
    application: Application, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = len(SYMBOLS) * DAYS
    add_rates(engine, date(2013, 12, 30), date(2022, 12, 30))
    with worker(application, tmp_path) as process:
        began = time.monotonic()
        for symbol in SYMBOLS:
            application.tasks.create_etf.enqueue(**creation_fields(symbol))
        until(lambda: all_completed(engine, EtfCreationTracking, len(SYMBOLS)), seconds=LIMIT)
        first = time.monotonic() - began
        before = summary(engine, WRITTEN)
        began = time.monotonic()
        for etf in rows(engine, Etf):
            fields = update_fields(
                etf, UpdateType.FULL, date(2014, 1, 2), date(2022, 12, 28), now=application.clock()
            )
            application.tasks.update_etf.enqueue(**fields)
        until(lambda: all_completed(engine, EtfUpdateTracking, 2 * len(SYMBOLS)), seconds=LIMIT)
        again = time.monotonic() - began
        memory = largest_process(process)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{total} prices of {len(SYMBOLS)} ETFs in {first:.1f} s, again in {again:.1f} s (limit "
            f"{LIMIT:g}); largest process {memory / MEGABYTE:.0f} MB (limit {MEMORY / MEGABYTE:.0f})\n"
        )

    assert tuple(summary(engine, PRICES)) == (total, 5, date(2014, 1, 2), date(2022, 12, 28), total)
    assert summary(engine, WRITTEN) == before
    assert {(row.status, row.attempts) for row in rows(engine, EtfUpdateTracking)} == {("COMPLETED", 0)}
    assert [row.missing_dates for row in rows(engine, EtfUpdateTracking)] == [[]] * 10
    assert memory < MEMORY
