"""Everything a chaos run needs, put together and taken down again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, NullPool, create_engine, insert, text

from tasktrail import Settings
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.settings import ENVIRONMENT_PREFIX, sqlalchemy_url
from tests.chaos import witness
from tests.chaos.app import FAST, Tasks, build
from tests.chaos.cluster import ROOT, Broker, Fleet, Rabbit, Redis
from tests.chaos.domains import Evidence, create_tables
from tests.chaos.invariants import violations
from tests.chaos.sabotage import SABOTAGE
from tests.waiting import until

BROKERS: Final = ("redis", "rabbitmq")
ACTIVE: Final = "SELECT count(*) FROM chaos.row WHERE status IN ('PENDING', 'PROCESSING')"


@dataclass(frozen=True)
class Field:
    """Tasks, the workers for them, and the evidence of both.

    Attributes:
        folder: of evidence and logs.
        fleet: the workers; none runs yet.
        tasks: the tasks, for this process.
        engine: to look into the database, with a fresh connection each time.
    """

    folder: Path
    fleet: Fleet
    tasks: Tasks
    engine: Engine

    def muster(self) -> None:
        """Start the workers and wait until they take messages."""
        self.fleet.muster()
        until(lambda: len(self.evidence("ready")) >= self.fleet.size, seconds=90)

    def evidence(self, event: str) -> list[dict[str, Any]]:
        """Return what the workers saw of one kind."""
        return [entry for entry in witness.read(self.folder / "evidence") if entry["event"] == event]

    def active(self) -> int:
        """Return how many rows wait or run."""
        with self.engine.connect() as db:
            return int(db.scalar(text(ACTIVE)))

    def violations(self, **rows: list[dict[str, Any]]) -> dict[str, list[str]]:
        """Put what was kept outside into the tables of these names, the evidence as well, and judge."""
        tables = Evidence.metadata.tables
        rows["evidence"] = list(witness.read(self.folder / "evidence"))
        with self.engine.begin() as db:
            for name, values in rows.items():
                if values:
                    db.execute(insert(tables[f"chaos.{name}"]), values)
            return violations(db)


@contextmanager
def field(
    folder: Path,
    database_url: str,
    broker_url: str,
    *,
    queue: str = "chaos",
    without: Collection[str] = (),
    size: int = 3,
    concurrency: int = 3,
    hosts: Sequence[Sequence[str]] = ((),),
    **settings: Any,
) -> Iterator[Field]:
    """Make tables and tasks on servers that run; the workers end with the block.

    Args:
        folder: of evidence and logs.
        database_url: an empty database.
        broker_url: a broker.
        queue: name of the queue.
        without: safeties that the workers do without.
        size: how many workers there are.
        concurrency: how many processes each worker's pool has.
        hosts: what command lines begin with that run on a host; workers are spread over them.
        **settings: settings of tasktrail that differ from ``FAST``.
    """
    evidence = folder / "evidence"
    evidence.mkdir(parents=True)
    engine = create_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    create_tables(engine)
    chosen = {**FAST, **settings, "database_url": database_url, "broker_url": broker_url}
    environment = {f"{ENVIRONMENT_PREFIX}{name.upper()}": str(value) for name, value in chosen.items()}
    environment |= {
        "CHAOS_EVIDENCE": str(evidence),
        "CHAOS_QUEUE": queue,
        SABOTAGE: ",".join(without),
        # Compiling Celery and SQLAlchemy takes most of a worker's start: once is enough.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(ROOT / ".pytest_cache" / "compiled"),
    }
    with ExitStack() as stack:
        tasks = build(Settings.load(**chosen), witness.Witness(evidence), queue)
        stack.callback(tasks.trail.app.close)
        stack.callback(tasks.trail.engines.dispose)
        fleet = Fleet(environment, folder, size, concurrency, hosts)
        stack.callback(fleet.kill)
        yield Field(folder, fleet, tasks, engine)


@dataclass(frozen=True)
class Arena:
    """A field with servers of its own, which can be struck as well.

    Attributes:
        field: tasks and workers.
        postgres: the database server.
        broker: the broker.
    """

    field: Field
    postgres: EmbeddedPostgres
    broker: Broker


@contextmanager
def arena(
    folder: Path, broker: str, *, persistent: bool = True, options: dict[str, str] | None = None, **more: Any
) -> Iterator[Arena]:
    """Start servers in a folder; they and the workers end with the block.

    Args:
        folder: of everything.
        broker: which broker, of ``BROKERS``.
        persistent: whether Redis keeps its content over a restart.
        options: settings of PostgreSQL.
        **more: as for ``field``.
    """
    with ExitStack() as stack:
        postgres = EmbeddedPostgres(
            folder / "postgres", options={"max_connections": "300", **(options or {})}
        )
        stack.callback(postgres.stop, "immediate")
        server: Broker = (
            Redis(folder / "redis", persistent=persistent) if broker == "redis" else Rabbit(folder / "rabbit")
        )
        stack.callback(server.close)
        field_ = stack.enter_context(field(folder, postgres.start(), server.start(), **more))
        yield Arena(field_, postgres, server)


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend a folder with a short path, which is deleted unless the block fails or ``CHAOS_KEEP`` is set."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    yield folder
    if "CHAOS_KEEP" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)
