"""The test stand: durable servers in a temporary folder, a small domain, and what the figures depend on."""

from __future__ import annotations

import os
import platform
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from celery import Celery
from rich.console import Console
from sqlalchemy import Engine, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasktrail import (
    BaseTaskTracking,
    BaseTaskTrackingService,
    NaturalKey,
    Run,
    Settings,
    TrackingOptions,
    Trail,
)
from tasktrail.celery.task import TrackedTask
from tasktrail.embedded import EmbeddedStack
from tasktrail.schema import v1, v2, v3
from tasktrail.settings import sqlalchemy_url

SCHEMA = "tracking"
TABLE = f"{SCHEMA}.report_tracking"
DAY = date(2026, 1, 1)
console = Console(width=120 if not os.isatty(1) else None)


class Base(DeclarativeBase):
    """The tables of the benchmarks."""


class ReportTracking(BaseTaskTracking, Base):
    """A domain as most are: a natural key of two columns and one more input."""

    __tablename__ = "report_tracking"
    __tracking__ = TrackingOptions(
        domain="report", schema=SCHEMA, natural_key=NaturalKey(("customer_id", "day"), "uq_report")
    )

    customer_id: Mapped[int]
    day: Mapped[date]
    format: Mapped[str] = mapped_column(String(10))


class ReportTrackingService(BaseTaskTrackingService[ReportTracking]):
    """The service of the reports."""

    model = ReportTracking


@dataclass(frozen=True)
class Stand:
    """Running servers and what is measured on them.

    Attributes:
        trail: tasktrail on these servers.
        task: the tracked task of the domain.
        database_url: PostgreSQL, for psycopg.
        broker_url: Redis, for kombu.
        redis_socket: Redis, for its own client.
    """

    trail: Trail
    task: TrackedTask[ReportTracking]
    database_url: str
    broker_url: str
    redis_socket: str

    def raw(self, *, durable: bool) -> psycopg.Connection:
        """Connect without tasktrail: autocommit, every statement prepared at first sight."""
        options = "-c timezone=UTC" + ("" if durable else " -c synchronous_commit=off")
        connection = psycopg.connect(self.database_url, autocommit=True, options=options)
        connection.prepare_threshold = 0
        return connection


@contextmanager
def stand() -> Iterator[Stand]:
    """Start PostgreSQL as it comes (fsync on) and Redis, with the tables made; both go with the block."""
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    with tempfile.TemporaryDirectory(prefix="tasktrail-bench-") as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as another user
        settings = Settings(database_url=None, broker_url=None, home=Path(folder))
        stack = EmbeddedStack(settings)
        with stack as complete:
            assert complete.database_url
            assert complete.broker_url
            assert stack.redis
            url = complete.database_url.get_secret_value()
            engine = create_engine(sqlalchemy_url(url))
            _create_tables(engine)
            engine.dispose()
            trail = Trail(Celery("bench"), complete, schema=SCHEMA)
            task = trail.task(ReportTrackingService, name="bench.report")(_report)
            broker = complete.broker_url.get_secret_value()
            yield Stand(trail, task, url, broker, str(stack.redis.socket))
            trail.engines.dispose()


def environment(database_url: str) -> dict[str, str]:
    """Return what the figures depend on: versions, cores, and how durable a commit is."""
    names = ("psycopg", "SQLAlchemy", "celery", "kombu", "redis")
    with psycopg.connect(database_url) as db:
        settings = ("server_version", "fsync", "synchronous_commit", "wal_sync_method", "shared_buffers")
        shown = {name: str(db.execute(f"SHOW {name}").fetchone()[0]) for name in settings}  # type: ignore[index]
    return {
        "Python": platform.python_version(),
        "PostgreSQL": shown.pop("server_version"),
        **{name: version(name) for name in names},
        "psycopg implementation": psycopg.pq.__impl__,
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        **shown,
        "connection": "Unix socket",
    }


def _report(run: Run[ReportTracking]) -> None:
    """Do nothing: the benchmarks measure the way there and back."""


def _create_tables(engine: Engine) -> None:
    with engine.begin() as db:
        operations = Operations(MigrationContext.configure(db))
        v1.upgrade(operations, schema=SCHEMA)
        v2.upgrade(operations, schema=SCHEMA)
        v3.upgrade(operations, schema=SCHEMA)
        Base.metadata.create_all(db)
