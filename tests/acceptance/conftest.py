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

import pytest
from sqlalchemy import Engine, create_engine

from conftest import MakeDatabase
from tasktrail import Enqueued, Settings
from tests.acceptance.worker_app import Tasks, build
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
            *(sys.executable, "-m", "celery", "--app", "tests.acceptance.worker_app", "worker"),
            *(f"--pool={pool}", f"--concurrency={concurrency}", "--loglevel=INFO", f"--hostname={name}@%h"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        log = self.folder / f"{name}-{pool}.log"
        with log.open("ab") as output:
            worker = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
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

    def told(self, row: Enqueued) -> list[str]:
        """Return what the body of a job told this test so far."""
        file = self.folder / f"{row.domain}-{row.id}"
        return file.read_text().splitlines() if file.exists() else []

    def let_go(self, row: Enqueued) -> None:
        """Let the body of a job that holds on come to its end."""
        (self.folder / f"{row.domain}-{row.id}.go").touch()


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
