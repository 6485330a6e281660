"""What the workers of ``tracked_vs_bare.py`` load: one no-op job, kept track of in the way under test."""

from __future__ import annotations

import mmap
import os
import struct
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench.stand import SCHEMA, ReportTracking, ReportTrackingService
from tasktrail import Run, Settings, Status, Trail
from tasktrail.settings import sqlalchemy_url

SLOTS = 4096


class Tally:
    """Counts finished jobs of several processes in a shared file, which costs a job about a microsecond."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:  # noqa: PTH123  # mmap wants a file number
            self._map = mmap.mmap(file.fileno(), SLOTS * 8)

    def count(self) -> None:
        """Add one to this process's number."""
        place = os.getpid() % SLOTS * 8
        (number,) = struct.unpack_from("q", self._map, place)
        struct.pack_into("q", self._map, place, number + 1)

    def total(self) -> int:
        """Return the sum over all processes."""
        return sum(struct.unpack_from(f"{SLOTS}q", self._map, 0))


def make(variant: str, database_url: str, broker_url: str, tally: Tally, queue: str) -> tuple[Celery, Any]:
    """Return the Celery application of a variant, and what enqueues its jobs."""
    app = Celery("bench", broker=broker_url)
    app.conf.update(
        task_default_queue=queue,
        worker_prefetch_multiplier=8,
        task_acks_late=True,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )
    if variant == "result backend":
        url = sqlalchemy_url(database_url).render_as_string(hide_password=False)
        app.conf.update(result_backend=f"db+{url}", task_track_started=True)
    if variant == "tracked":
        settings = Settings.load(database_url=database_url, broker_url=broker_url)
        trail = Trail(app, settings, schema=SCHEMA)

        @trail.task(ReportTrackingService, name="bench.job")
        def tracked(_: Run[ReportTracking]) -> None:
            tally.count()

        return app, tracked

    if variant == "plan's way":
        engine = create_engine(sqlalchemy_url(database_url))

        @app.task(name="bench.job", ignore_result=True)
        def by_orm(tracking_id: int) -> None:
            with Session(engine) as db:
                row = db.get_one(ReportTracking, tracking_id)
                row.status = Status.PROCESSING.value
                row.started_at = datetime.now(UTC)
                db.commit()
                row.status = Status.COMPLETED.value
                row.completed_at = datetime.now(UTC)
                db.commit()
            tally.count()

        return app, by_orm

    @app.task(name="bench.job", ignore_result=variant == "bare")
    def plain(tracking_id: int) -> None:  # noqa: ARG001
        tally.count()

    return app, plain


if "BENCH_VARIANT" in os.environ:
    app, _ = make(
        os.environ["BENCH_VARIANT"],
        os.environ["BENCH_DATABASE_URL"],
        os.environ["BENCH_BROKER_URL"],
        Tally(os.environ["BENCH_TALLY"]),
        os.environ["BENCH_QUEUE"],
    )
