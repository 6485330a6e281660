"""The queries of each page of the dashboard, on millions of rows, beside what one would write first.

Run it as ``.venv/bin/python -m bench.monitoring [--rows N] [--folder FOLDER]``. All figures come from one
PostgreSQL in one run. Each figure is the time of all statements of a page, warm, with transaction and
parsing. Rows that lie in the folder from a run before are measured again; they age, so build new ones then.

Then one dashboard and fifty are open for a while, on the same rows, which change all the time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from rich.console import Console
from sqlalchemy import Connection, Engine, create_engine, inspect, select, text

from bench import monitoring_peers as peers
from bench.monitoring_pages import cost_of
from bench.monitoring_rows import DOMAINS, SCHEMA, create_tables, fill
from bench.report import Figure, Report
from bench.stand import environment
from tasktrail import Filter, Status, bookkeeping
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.guards import table_of
from tasktrail.library import library
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import Period, Source, Window
from tasktrail.settings import sqlalchemy_url

TITLE: Final = "Monitoring {rows:,} rows"
HOW: Final = (
    "Four domains, thirty days. A page is all its statements, warm, with transaction and parsing; 95th "
    "percentile of {rounds} reads. Beside it is what one would write first: tables counted whole, OFFSET, "
    "errors folded when they are read."
)
ROUNDS: Final = 60
PEER_ROUNDS: Final = 1
SEARCH_BOUND: Final = 500
"""A filter that no index serves is searched for in bounded time: what is found by then is the page."""
LEASE: Final = 60.0
OVERDUE: Final = 120.0
PRICES, RATES = DOMAINS[:2]

console = Console(width=120)


@dataclass(frozen=True)
class Page:
    """A page, or a part of one that is loaded by itself.

    Attributes:
        name: what it is called.
        bound: how long it may take at the 95th percentile, in milliseconds.
        read: the queries of the read model.
        peer: what one would write first; ``None`` where that is the same.
    """

    name: str
    bound: float
    read: Callable[[Source], object]
    peer: Callable[[Connection], object] | None = None


def pages(db: Source) -> Iterator[Page]:
    """Yield all pages; the database tells the time, an id, and the largest group of failures."""
    now = queries.server_time(db)
    windows = {period: Window.of(period, now) for period in Period}
    for period, window in windows.items():
        yield Page(
            f"overview {period}", 50, overview(window), lambda db, window=window: peers.overview(db, window)
        )
    for period, window in windows.items():
        yield Page(
            f"failures {period}", 50, failures(window), lambda db, window=window: peers.failures(db, window)
        )
    yield Page("workers", 50, lambda db: queries.workers(db, DOMAINS), peers.workers)
    starts = list(windows[Period.MONTH].starts())
    group = queries.failures(db, PRICES, windows[Period.MONTH]).groups[0]
    table = table_of(PRICES.model)
    middle = db.execute(select(table.c.id).order_by(table.c.id).offset(1000).limit(1)).scalar_one()
    filters: dict[str, tuple[Filter, str | None, str]] = {
        "all": (Filter(), None, "true"),
        **{
            f"state {state.lower()}": (Filter(states=[state]), None, f"status = '{state}'")
            for state in Status
        },
        "two states": (
            Filter(states=[Status.FAILED, Status.CANCELLED]),
            None,
            "status IN ('FAILED', 'CANCELLED')",
        ),
        "six hours, 20 days ago": (
            Filter(created_from=starts[40], created_before=starts[41]),
            None,
            "created_at >= now() - interval '20 d' AND created_at < now() - interval '20 d' + interval '6 h'",
        ),
        "a group of failures": (Filter(), group.group, f"failure_group = '{group.group}'"),
        "search: retried": (Filter(attempts_from=1), None, "attempts >= 1"),
        "search: a customer": (Filter(fields={"customer": 77}), None, "customer = 77"),
        "search: text of an error": (Filter(error="batch-13"), None, "error_message ILIKE '%batch-13%'"),
        "search: a worker": (Filter(worker="celery@worker-3"), None, "worker LIKE 'celery@worker-3%'"),
        "search: text nobody wrote": (
            Filter(error="no such text"),
            None,
            "error_message ILIKE '%no such text%'",
        ),
    }
    for name, (chosen, of, where) in filters.items():
        yield Page(
            name if name.startswith("search") else f"list: {name}",
            SEARCH_BOUND if name.startswith("search") else 10,
            lambda db, chosen=chosen, of=of: queries.page(db, PRICES, chosen, group=of),
            lambda db, where=where: peers.listed(db, PRICES, where),
        )
    token = queries.page(db, PRICES, Filter()).next
    yield Page("list: second page", 10, lambda db: queries.page(db, PRICES, Filter(), after=token))
    yield Page("row", 10, lambda db: queries.details(db, PRICES, middle, schema=SCHEMA))


def overview(window: Window) -> Callable[[Source], object]:
    """The figures of all domains, as the overview shows them and metrics export them."""

    return lambda db: queries.overview(db, DOMAINS, window, lease=LEASE, bound=OVERDUE)


def failures(window: Window) -> Callable[[Source], object]:
    return lambda db: [queries.failures(db, domain, window) for domain in DOMAINS]


@contextmanager
def database(folder: Path | None, rows: int) -> Iterator[Engine]:
    """Yield an engine of a server with so many rows."""
    with tempfile.TemporaryDirectory(prefix="tasktrail-bench-") as name:
        home = folder or Path(name)
        home.mkdir(exist_ok=True)
        home.chmod(0o755)
        server = EmbeddedPostgres(home / "postgres")
        engine = create_engine(sqlalchemy_url(server.start()))
        try:
            if not inspect(engine).has_table(table_of(PRICES.model).name, schema=SCHEMA):
                build(engine, rows)
            yield engine
        finally:
            engine.dispose()
            server.stop("fast")


def build(engine: Engine, rows: int) -> None:
    create_tables(engine)
    took = timed(lambda: fill(engine, rows))
    console.print(f"{rows:,} rows built in {took:.0f} s")


def roll_up(engine: Engine) -> Figure:
    """Make all rollups there are to make, as maintenance does in its first rounds, two domains at a time."""
    with ThreadPoolExecutor(2) as pool:
        took = timed(lambda: list(pool.map(partial(_roll_up, engine), DOMAINS)))
    table = library(SCHEMA).rollups
    with engine.connect() as db:
        kept = db.execute(text(f"SELECT count(*) FROM {table.fullname}")).scalar_one()
    console.print(f"rolled up in {took:.1f} s, {kept:,} figures")
    took = timed(lambda: [bookkeeping.roll_up(engine, domain) for domain in DOMAINS])
    return Figure("rollups: a later round of maintenance, all domains", took * 1000, "ms")


def _roll_up(engine: Engine, domain: Any) -> None:
    state = library(SCHEMA).rollup_state
    query = select(state.c.audited_to, state.c.built_from).where(state.c.domain == domain.name)
    while True:
        bookkeeping.roll_up(engine, domain)
        with engine.connect() as db:
            audited, built = db.execute(query).one()
        if audited != built:  # it has turned at the oldest row
            return


def timed(work: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(engine: Engine, page: Page, rounds: int) -> list[float]:
    def read() -> None:
        with queries.reading(engine, timeout=60) as db:
            page.read(db)

    for _ in range(8):  # until the driver has prepared what it repeats
        read()
    return [timed(read) * 1000 for _ in range(rounds)]


def measure_peer(engine: Engine, page: Page) -> float | None:
    if page.peer is None:
        return None
    with engine.connect() as db:
        return median(timed(lambda: page.peer and page.peer(db)) * 1000 for _ in range(PEER_ROUNDS))


def figures(engine: Engine, rounds: int, *, with_peers: bool) -> Iterator[Figure]:
    """Yield each page's figure, and print it as soon as it is measured."""
    say("page", "p50", "p95", "bound", "first thought", "times")
    with queries.reading(engine, timeout=60) as db:
        found = list(pages(db))
    for page in found:
        times = measure(engine, page, rounds)
        p50, p95 = median(times), quantiles(times, n=20)[-1]
        bound = f"{page.bound:.0f} ms{' !' if p95 > page.bound else '  '}"
        said = [f"{p50:.1f} ms", f"{p95:.1f} ms", bound]
        peer = measure_peer(engine, page) if with_peers else None
        say(page.name, *said, *(() if peer is None else (f"{peer:,.0f} ms", f"{peer / p50:,.0f}")))
        beside = ("", None, None) if peer is None else ("first thought", peer, p95 / peer)
        target = f"p95 under {page.bound:.0f} ms"
        yield Figure(f"{page.name}, p95", p95, "ms", *beside, target=target, met=p95 < page.bound)


def open_pages(engine: Engine, pages: int = 50) -> Iterator[Figure]:
    """Yield what many open dashboards cost beside one."""
    one, many = cost_of(engine, 1), cost_of(engine, pages)
    for what, unit in (("transactions", "/s"), ("rows read", "rows/s")):
        name = what.removesuffix(" read")
        ours, theirs = getattr(many, name), getattr(one, name)
        yield Figure(
            f"{pages} open dashboards, {what}",
            ours,
            unit,
            "one dashboard",
            theirs,
            ours / theirs,
            "no more than one, within 10 %",
            ours <= 1.1 * theirs,
        )
    console.print(f"one dashboard: {one}; {pages}: {many}")


def say(page: str, *figures: str) -> None:
    console.print(f"{page:<30}" + "".join(f"{figure:>14}" for figure in figures), highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, help="keep the rows there")
    parser.add_argument("--build", action="store_true", help="build the rows and stop")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with database(options.folder, options.rows) as engine:
        if options.build:
            return
        settings = environment(engine.url.render_as_string(hide_password=False).replace("+psycopg", ""))
        report = Report(TITLE.format(rows=options.rows), HOW.format(rounds=options.rounds), settings)
        report.add(roll_up(engine))
        report.add(*figures(engine, options.rounds, with_peers=not options.no_peers))
        report.add(*open_pages(engine))
    console.print(report.table)
    if options.json:
        report.write(options.json)


if __name__ == "__main__":
    main()
