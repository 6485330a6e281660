"""Fifty open dashboards beside one: what they cost the database while rows change all the time."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, TypeAlias

import httpx
from celery import Celery
from sqlalchemy import Engine, text

from bench.monitoring_rows import DOMAINS, SCHEMA
from tasktrail import Settings, Trail
from tasktrail.guards import table_of
from tasktrail.web import create_app
from tests.serving import served

SECONDS: Final = 80.0
"""One look more or less makes no difference in so long a time."""
LEAST: Final = 1.5
"""Between two fetches of one page, in seconds, as its script has it."""
CHANGES: Final = 1
"""Rows that change in a second meanwhile: each look finds something else, and they count for little."""


Counters: TypeAlias = tuple[int, int, int, float]
"""Transactions and rows of the server, changes of ours, and when that was."""


@dataclass(frozen=True)
class Cost:
    """What the database did in a second.

    Attributes:
        transactions: how many it committed, without those that changed rows.
        rows: how many it read.
        fetches: how often pages fetched themselves, all of them.
    """

    transactions: float
    rows: float
    fetches: float


def cost_of(engine: Engine, pages: int) -> Cost:
    """Return what so many open overviews cost in ``SECONDS``, while rows change, without opening them."""
    with served(create_app(_trail(engine), is_open=True)) as url, _changes(engine) as changes:

        def counters() -> Counters:
            time.sleep(1.5)  # sessions of the server report with a delay of a second
            return (*_counters(engine), changes[0], time.monotonic())

        before, fetches = asyncio.run(_look_on(url, pages, counters))
        after = counters()
    transactions, rows, changed, seconds = (
        later - earlier for earlier, later in zip(before, after, strict=True)
    )
    return Cost((transactions - changed) / seconds, rows / seconds, fetches / seconds)


def _trail(engine: Engine) -> Trail:
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    trail = Trail(Celery("bench", broker="memory://"), Settings.load(database_url=url), schema=SCHEMA)
    for domain in DOMAINS:
        trail.task(domain.service, name=f"bench.{domain.name}")(_nothing)
    return trail


def _nothing(_: Any) -> None:
    """Do nothing."""


def _counters(engine: Engine) -> tuple[int, int]:
    """Return how many transactions were committed and rows read in this database so far."""
    query = "SELECT xact_commit, tup_returned FROM pg_stat_database WHERE datname = current_database()"
    with engine.connect() as db:
        return tuple(db.execute(text(query)).one())  # type: ignore[return-value]


@contextmanager
def _changes(engine: Engine) -> Iterator[list[int]]:
    """Have cancelled rows wait, one after the other, then cancel them; yields how many changes there were."""
    table = table_of(DOMAINS[0].model).fullname
    change = text(
        f"UPDATE {table} SET status = CASE status WHEN 'PENDING' THEN 'CANCELLED' ELSE 'PENDING' END, "
        "completed_at = CASE status WHEN 'PENDING' THEN now() END WHERE id = :id"
    )
    with engine.connect() as db:
        found = db.execute(text(f"SELECT id FROM {table} WHERE status = 'CANCELLED' LIMIT 1000"))
        ids = cycle(found.scalars().all())
    done, over = [0], threading.Event()

    def go_on() -> None:
        while not over.wait(1 / CHANGES):
            with engine.begin() as db:
                db.execute(change, {"id": next(ids)})
            done[0] += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


async def _look_on(url: str, pages: int, counters: Callable[[], Counters]) -> tuple[Counters, int]:
    """Open pages and let them follow; return the counters once all are open, and how often they fetched."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        for _ in range(pages):
            (await client.get("/", headers={"Accept": "text/html"})).raise_for_status()
        before = await asyncio.to_thread(counters)
        return before, sum(await asyncio.gather(*(_page(client) for _ in range(pages))))


async def _page(client: httpx.AsyncClient) -> int:
    """Do what the script of an open overview does; return how often it fetched."""
    headers = {"Accept": "text/html", "X-Live": "1"}
    fetched, last, fetched_at = 0, None, 0.0
    ends_at = time.monotonic() + SECONDS
    async with client.stream("GET", "/stream") as stream:
        async for line in stream.aiter_lines():
            if time.monotonic() > ends_at:
                break
            if not line.startswith('data: {"at"'):
                continue
            seen = json.loads(line.removeprefix("data: "))
            mark = [*seen["domains"].values(), seen["at"][:16]]
            if last is not None and mark != last and time.monotonic() - fetched_at >= LEAST:
                fetched_at = time.monotonic()
                (await client.get("/", headers=headers)).raise_for_status()
                fetched += 1
            last = mark
    return fetched
