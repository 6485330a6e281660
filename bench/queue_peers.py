"""Queues in PostgreSQL without a broker, as peers of ``tracked_vs_bare.py``: procrastinate and PgQueuer.

    python -m bench.queue_peers NAME DATABASE_URL TALLY

is one worker of a peer, until SIGTERM. Each worker works on eight jobs at a time, as many as a Celery
process prefetches; everything else is as the library comes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from bench.drain_app import Tally

AT_A_TIME = 8
BATCH = 1000


@dataclass(frozen=True)
class Peer:
    """A library.

    Attributes:
        name: what it is called.
        module: what it is imported as.
        install: makes its tables.
        fill: puts so many jobs into its queue.
        work: works on them until it is cancelled.
    """

    name: str
    module: str
    install: Callable[[str], Awaitable[None]]
    fill: Callable[[str, int], Awaitable[None]]
    work: Callable[[str, Tally], Awaitable[None]]

    @property
    def is_installed(self) -> bool:
        """Whether it is there; `uv sync --inexact --group bench` does that."""
        return find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Its version."""
        return version(self.module)


def _procrastinate(url: str, tally: Tally | None = None) -> tuple[Any, Any]:
    import procrastinate  # noqa: PLC0415

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name="bench.job")
    async def job(number: int) -> None:  # noqa: ARG001
        if tally:
            tally.count()

    return app, job


async def _install_procrastinate(url: str) -> None:
    app, _ = _procrastinate(url)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def _fill_procrastinate(url: str, jobs: int) -> None:
    app, job = _procrastinate(url)
    async with app.open_async():
        for start in range(0, jobs, BATCH):
            await job.batch_defer_async(*({"number": n} for n in range(start, min(start + BATCH, jobs))))


async def _work_procrastinate(url: str, tally: Tally) -> None:
    app, _ = _procrastinate(url, tally)
    async with app.open_async():
        await app.run_worker_async(concurrency=AT_A_TIME)


async def _pgqueuer(url: str) -> tuple[Any, Any]:
    import psycopg  # noqa: PLC0415
    from pgqueuer import PgQueuer, PsycopgDriver  # noqa: PLC0415
    from pgqueuer.queries import Queries  # noqa: PLC0415

    driver = PsycopgDriver(await psycopg.AsyncConnection.connect(url, autocommit=True))
    return PgQueuer(driver), Queries(driver)


async def _install_pgqueuer(url: str) -> None:
    _, queries = await _pgqueuer(url)
    await queries.install()


async def _fill_pgqueuer(url: str, jobs: int) -> None:
    _, queries = await _pgqueuer(url)
    for start in range(0, jobs, BATCH):
        some = range(start, min(start + BATCH, jobs))
        await queries.enqueue(["job"] * len(some), [str(n).encode() for n in some], [0] * len(some))


async def _work_pgqueuer(url: str, tally: Tally) -> None:
    queue, _ = await _pgqueuer(url)

    @queue.entrypoint("job")
    async def job(_: Any) -> None:
        tally.count()

    await queue.run(batch_size=AT_A_TIME)


PEERS = (
    Peer("procrastinate", "procrastinate", _install_procrastinate, _fill_procrastinate, _work_procrastinate),
    Peer("PgQueuer", "pgqueuer", _install_pgqueuer, _fill_pgqueuer, _work_pgqueuer),
)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    name, url, path = sys.argv[1:]
    asyncio.run(next(peer for peer in PEERS if peer.name == name).work(url, Tally(path)))
