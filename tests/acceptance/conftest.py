"""Live Celery workers, as processes of their own, on real servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from conftest import MakeDatabase
from tasktrail import Enqueued, Settings, Status, TrackedTask
from tests.acceptance.worker_app import Tasks, build
from tests.support import Effect
from tests.waiting import until

Worker = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Live:
    """Tracked tasks, their database, and a way to run workers for them."""

    tasks: Tasks
    engine: Engine
    folder: Path

    @contextmanager
    def worker(
        self, pool: str = "prefork", concurrency: int = 2, *, name: str = "celery", **options: object
    ) -> Iterator[Worker]:
        """Run a live worker for as long as the block takes.

        Args:
            pool: its kind of pool.
            concurrency: how many jobs it runs at once.
            name: tells several workers of one test apart.
            **options: settings of tasktrail that differ from the default, e.g. ``lease=1``.
        """
        log = self.folder / f"{name}-{pool}.log"
        worker = self.start(log, "tests.acceptance.worker_app", pool, concurrency, name=name, **options)
        try:
            until(lambda: b" ready." in log.read_bytes() or worker.poll() is not None, seconds=60)
            assert worker.poll() is None, log.read_text()
            yield worker
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def start(
        self, log: Path, app: str, pool: str, concurrency: int, *, name: str = "celery", **options: object
    ) -> Worker:
        """Start a worker for the application in a module, and do not wait for it."""
        settings = self.tasks.trail.settings
        assert settings.database_url is not None
        assert settings.broker_url is not None
        environment = {
            **os.environ,
            "TASKTRAIL_DATABASE_URL": settings.database_url.get_secret_value(),
            "TASKTRAIL_BROKER_URL": settings.broker_url.get_secret_value(),
            "TEST_QUEUE": self.tasks.trail.app.conf.task_default_queue,
            "TEST_FOLDER": str(self.folder),
            **{f"TASKTRAIL_{option.upper()}": str(value) for option, value in options.items()},
        }
        command = [
            *(sys.executable, "-m", "celery", "--app", app, "worker"),
            *(f"--pool={pool}", f"--concurrency={concurrency}", "--loglevel=INFO", f"--hostname={name}@%h"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        with log.open("ab") as output:
            return subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def told(self, row: Enqueued) -> list[str]:
        """Return what the body of a job told this test so far."""
        file = self.folder / f"{row.domain}-{row.id}"
        return file.read_text().splitlines() if file.exists() else []

    def let_go(self, *rows: Enqueued) -> None:
        """Let the bodies of jobs that hold on come to their end."""
        for row in rows:
            (self.folder / f"{row.domain}-{row.id}.go").touch()

    def hold(self, kind: str, payload: str = "hold", **fields: Any) -> tuple[Enqueued, int]:
        """Start a job that holds on; return it and the id of the process that runs it."""
        task: TrackedTask[Any] = getattr(self.tasks, kind)
        job = task.enqueue(payload=payload, **fields)
        return job, self.pid(job)

    def pid(self, job: Enqueued, attempt: int = 1) -> int:
        """Wait until an attempt of a job that holds on runs, and return the id of its process."""

        def pids() -> list[str]:
            return [line for line in self.told(job) if line.startswith("pid ")]

        until(lambda: len(pids()) >= attempt, seconds=40)
        return int(pids()[attempt - 1].removeprefix("pid "))

    def row(self, job: Enqueued) -> Any:
        """Return a row as it is now."""
        with Session(self.engine) as db:
            return db.get_one(self.tasks.trail.registry.get(job.domain).model, job.id)

    def ended(self, job: Enqueued, seconds: float = 40) -> Any:
        """Wait until a row has ended, and return it."""
        return until(lambda: row if Status((row := self.row(job)).status).is_ended else None, seconds=seconds)

    def effects(self, job: Enqueued) -> int:
        """Return how often the side effect of a job was committed."""
        query = select(func.count()).where(Effect.job_id == job.id)
        with Session(self.engine) as db:
            return db.scalars(query).one()


def outcomes(row: Any) -> list[tuple[int, str]]:
    """Return the numbers and outcomes of the attempts in the log of a row."""
    return [(entry["number"], entry["outcome"]) for entry in row.attempt_log]


@contextmanager
def live(database_url: str, redis_url: str, queue: str, folder: Path) -> Iterator[Live]:
    """Put tasks on a queue and a database of their own together."""
    settings = Settings.load(database_url=database_url, broker_url=redis_url)
    tasks = build(settings, queue=queue)
    engine = create_engine(database_url)
    yield Live(tasks, engine, folder)
    engine.dispose()
    tasks.trail.engines.dispose()
    tasks.trail.app.close()


@pytest.fixture
def fresh(
    database_url: str, redis_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Live]:
    """Tasks on a fresh database and queue, without a worker yet."""
    with live(database_url, redis_url, request.node.name, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def prefork(
    make_database: MakeDatabase,
    library_template: str,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    """Tasks with a live prefork worker of two processes, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("prefork")
    with live(make_database(library_template), redis_url, folder.name, folder) as found, found.worker():
        yield found


@pytest.fixture(scope="module")
def brisk(
    make_database: MakeDatabase,
    library_template: str,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    """Like ``prefork``, with a heartbeat every fifth of a second and the usual lease of a minute."""
    folder = tmp_path_factory.mktemp("brisk")
    with (
        live(make_database(library_template), redis_url, folder.name, folder) as found,
        found.engine.connect() as db,
    ):
        # So that the id of a side effect says which domain's job it was.
        db.execute(text("ALTER TABLE tracking.async_job_tracking ALTER COLUMN id RESTART WITH 1000001"))
        db.commit()
        with found.worker(heartbeat_interval=0.2, maintenance_interval=0.1):
            yield found
