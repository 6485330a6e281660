"""Everything a chaos run needs, put together and taken down again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, NullPool, create_engine, insert

from tasktrail import Settings
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.settings import ENVIRONMENT_PREFIX, sqlalchemy_url
from tests.chaos import witness
from tests.chaos.app import FAST, Tasks, build
from tests.chaos.cluster import Broker, Fleet, Rabbit, Redis
from tests.chaos.domains import Evidence, create_tables
from tests.chaos.sabotage import SABOTAGE

BROKERS: Final = ("redis", "rabbitmq")


@dataclass(frozen=True)
class Arena:
    """Servers that run, workers that don't yet, and the tasks to give them.

    Attributes:
        folder: of everything.
        postgres: the database server.
        broker: the broker.
        fleet: the workers.
        tasks: the tasks, for this process.
        engine: to look into the database, with a fresh connection each time.
    """

    folder: Path
    postgres: EmbeddedPostgres
    broker: Broker
    fleet: Fleet
    tasks: Tasks
    engine: Engine

    @property
    def ready(self) -> set[int]:
        """The main processes of the workers that have begun to take messages."""
        return {entry["pid"] for entry in witness.read(self.folder / "evidence") if entry["event"] == "ready"}

    def load(self, **rows: list[dict[str, Any]]) -> None:
        """Put what was kept outside into the tables of the same names, and the workers' evidence as well."""
        tables = Evidence.metadata.tables
        rows["evidence"] = list(witness.read(self.folder / "evidence"))
        with self.engine.begin() as db:
            for name, values in rows.items():
                if values:
                    db.execute(insert(tables[f"chaos.{name}"]), values)


@contextmanager
def arena(
    folder: Path,
    broker: str,
    *,
    persistent: bool = True,
    without: Collection[str] = (),
    size: int = 3,
    concurrency: int = 3,
    **settings: Any,
) -> Iterator[Arena]:
    """Start servers in a folder; they and the workers end with the block.

    Args:
        folder: of everything.
        broker: which broker, of ``BROKERS``.
        persistent: whether Redis keeps its content over a restart.
        without: safeties that the workers do without.
        size: how many workers there are.
        concurrency: how many processes each worker's pool has.
        **settings: settings of tasktrail that differ from ``FAST``.
    """
    evidence = folder / "evidence"
    evidence.mkdir(parents=True)
    with ExitStack() as stack:
        postgres = EmbeddedPostgres(folder / "postgres", options={"max_connections": "300"})
        stack.callback(postgres.stop, "immediate")
        url = postgres.start()
        messages: Broker = (
            Redis(folder / "redis", persistent=persistent) if broker == "redis" else Rabbit(folder / "rabbit")
        )
        stack.callback(messages.close)
        messages.start()
        engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
        create_tables(engine)

        chosen = {**FAST, **settings}
        tasks = build(
            Settings.load(database_url=url, broker_url=messages.url, **chosen), witness.Witness(evidence)
        )
        stack.callback(tasks.trail.app.close)
        stack.callback(tasks.trail.engines.dispose)
        environment = {
            f"{ENVIRONMENT_PREFIX}{name.upper()}": str(value)
            for name, value in {**chosen, "database_url": url, "broker_url": messages.url}.items()
        }
        environment |= {"CHAOS_EVIDENCE": str(evidence), SABOTAGE: ",".join(without)}
        # Compiling Celery and SQLAlchemy takes most of a worker's start: once is enough.
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        fleet = Fleet(environment, folder, size, concurrency)
        stack.callback(fleet.kill)
        yield Arena(folder, postgres, messages, fleet, tasks, engine)


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend a folder with a short path, which is deleted unless the block fails or ``CHAOS_KEEP`` is set."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    yield folder
    if "CHAOS_KEEP" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)
