"""Has thumbnails made: tables, rows, a worker, and what the table says when it is done."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session
from tasks import ThumbnailTracking, make_thumbnail, trail

from tasktrail import Status
from tasktrail.schema import create_missing

WIDTHS = (32, 8)
DEADLINE = 60.0
"""Seconds within which the worker must be done."""

WORKER = (
    *(sys.executable, "-m", "celery", "--app", "tasks", "--quiet", "worker", "--concurrency=2"),
    *("--loglevel=CRITICAL", "--without-gossip", "--without-mingle"),
)


def make_thumbnails(pictures: Sequence[Path]) -> None:
    """Make thumbnails of pictures by a worker of one's own, and show the rows."""
    create_tables()
    enqueued = make_thumbnail.enqueue_many(
        {"picture": str(picture.resolve()), "width": width} for picture in pictures for width in WIDTHS
    )
    print(f"{enqueued.created} new rows, {enqueued.existing} were there already", flush=True)
    log = trail.settings.home / "thumbnails.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as output,
        subprocess.Popen(WORKER, cwd=Path(__file__).parent, stdout=output, stderr=output) as worker,
    ):
        try:
            wait_until_done(worker, log)
        finally:
            worker.terminate()
    show()
    trail.engines.dispose()


def create_tables() -> None:
    """Make the tables; an application would do this in Alembic revisions."""
    with trail.engines.sync.begin() as db:
        create_missing(db, trail.registry, schema=trail.schema)


def wait_until_done(worker: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until every row has ended."""
    ended = [status for status in Status if status.is_ended]
    unfinished = select(ThumbnailTracking.id).where(ThumbnailTracking.status.not_in(ended)).limit(1)
    deadline = time.monotonic() + DEADLINE
    while True:
        with Session(trail.engines.sync) as db:
            if db.scalar(unfinished) is None:
                return
        if worker.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the worker did not make the thumbnails; its log: {log}")
        time.sleep(0.1)


def show() -> None:
    """Print the rows."""
    with Session(trail.engines.sync) as db:
        for row in db.scalars(select(ThumbnailTracking).order_by(ThumbnailTracking.id)):
            came_of_it = f"{row.height} high, {row.size} bytes" if row.size else row.error_message
            print(f"{Path(row.picture).name}, {row.width} wide: {row.status}, {came_of_it}")
