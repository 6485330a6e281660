"""Servers for all tests: one embedded PostgreSQL and Redis a session, a database of its own for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from celery import _state
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tasktrail.embedded import EmbeddedPostgres, EmbeddedRedis
from tasktrail.settings import sqlalchemy_url
from tests.chromium import chromium  # noqa: F401  # a fixture
from tests.rabbitmq import RabbitMQ, require_rabbitmq
from tests.support import create_tables

MakeDatabase = Callable[..., str]
_numbers = count()


@pytest.fixture(autouse=True)
def no_shared_tasks() -> Iterator[None]:
    """Celery gives a task to every application of the process; here each test's stay its own."""
    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(before)


@pytest.fixture(scope="session")
def servers() -> Iterator[Path]:
    """A folder for the session's servers, which another user may enter: PostgreSQL does not run as root.

    Not below pytest's own folder, which each new session of pytest closes to all others.
    """
    with TemporaryDirectory(prefix="tasktrail-tests-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def postgres(servers: Path) -> Iterator[URL]:
    """A real PostgreSQL; its URL names the maintenance database."""
    server = EmbeddedPostgres(servers / "postgres", options={"fsync": "off"})
    server.start()
    yield sqlalchemy_url(server.url)
    server.stop("immediate")


@pytest.fixture(scope="session")
def make_database(postgres: URL) -> Iterator[MakeDatabase]:
    """Create databases, empty or cloned from a template; all of them go with the server."""
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")

    def make(template: str = "template1") -> str:
        name = f"test_{next(_numbers)}"
        with admin.connect() as db:
            db.execute(text(f'CREATE DATABASE {name} TEMPLATE "{template}"'))
        return str(postgres.set(database=name).render_as_string(hide_password=False))

    yield make
    admin.dispose()


@pytest.fixture(scope="session")
def library_template(make_database: MakeDatabase) -> str:
    """Name of a database with the tables of ``tests/support``."""
    url = make_database()
    engine = create_engine(url)
    create_tables(engine)
    engine.dispose()
    return engine.url.database or ""


@pytest.fixture
def database_url(make_database: MakeDatabase, library_template: str) -> str:
    """A fresh database with the tables of ``tests/support``."""
    return make_database(library_template)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the fresh database."""
    engine = create_engine(database_url, pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A sync session on the fresh database."""
    with Session(engine) as session:
        yield session


@pytest.fixture
async def async_session(database_url: str) -> AsyncIterator[AsyncSession]:
    """An async session on the fresh database."""
    engine = create_async_engine(database_url)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


@pytest.fixture(scope="session")
def redis_url(servers: Path) -> Iterator[str]:
    """A real Redis."""
    server = EmbeddedRedis(servers / "redis", persistent=False)
    yield server.start()
    server.stop()


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory, with no tasktrail settings in the environment."""
    for name in ("TASKTRAIL_DATABASE_URL", "TASKTRAIL_BROKER_URL", "TASKTRAIL_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real RabbitMQ: the one that the environment names, or our own where the package is installed."""
    if named := os.environ.get("TASKTRAIL_TEST_RABBITMQ_URL"):
        yield named
        return
    require_rabbitmq()
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server.url
