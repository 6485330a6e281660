"""``tasktrail watch``: how the domains are, on a terminal that is kept up to date."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tasktrail.celery import Trail
from tasktrail.cli.application import trail_of
from tasktrail.cli.durations import spoken
from tasktrail.cli.look import Names
from tasktrail.cli.printing import plain
from tasktrail.errors import DatabaseUnavailable, ReadTimeout
from tasktrail.monitoring import queries
from tasktrail.monitoring.queries import Overview, Period, Window
from tasktrail.registry import Domain
from tasktrail.states import Status

BARS: Final = "▁▂▃▄▅▆▇█"
SHOWN_BARS: Final = 30
"""How many minutes the line of throughput shows."""

COLOURS: Final = {Status.PROCESSING: "cyan", Status.FAILED: "red", Status.COMPLETED: "green"}


def watch(
    context: typer.Context,
    domains: Names = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Show how the domains are, again and again, until Ctrl-C."""
    trail = trail_of(context)
    console = Console(highlight=False)
    if not console.is_terminal:  # see tasktrail.cli.look
        console = Console(highlight=False, width=10_000)
    chosen = [trail.registry.get(name) for name in domains] if domains else list(trail.registry)
    try:
        with trail.engines.errors():
            first = _screen(trail, chosen)
        if once:
            console.print(first)
            return
        with (
            _stopping() as stop,
            Live(first, console=console, auto_refresh=False, screen=console.is_terminal) as live,
        ):
            while not stop.wait(interval):
                live.update(_look_again(trail, chosen), refresh=True)
    finally:
        trail.dispose()


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Have Ctrl-C and SIGTERM set an event, so that the terminal is given back as it was."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # one that was not set from Python
                signal.signal(number, handler)


def _look_again(trail: Trail, domains: list[Domain]) -> RenderableType:
    """Look once more; a database that is away for a while is waited for."""
    try:
        with trail.figures.errors():
            return _screen(trail, domains)
    except (DatabaseUnavailable, ReadTimeout) as error:
        return Text(f"no figures: {error}", style="red")


def _screen(trail: Trail, domains: list[Domain]) -> RenderableType:
    settings = trail.settings
    with queries.reading(trail.figures.sync) as db:
        now = queries.server_time(db)
        window = Window.of(Period.HOUR, now)
        found = queries.overview(db, domains, window, lease=settings.lease, bound=settings.overdue_after)
        workers = [one for one in queries.workers(db, domains) if one.processing]
    table = Table("domain")
    names = [*(state.value.lower() for state in Status), "oldest due", "stuck", "overdue"]
    for name in (*names, "ended/min", "success", "p95"):
        table.add_column(name, justify="right")
    table.add_column(f"ended in the last {SHOWN_BARS} min")
    for one in found:
        table.add_row(*_cells(one))
    running = sum(one.counts.processing for one in found)
    said = f"{now:%Y-%m-%d %H:%M:%S}Z  {running:,} jobs run on {len(workers):,} worker processes"
    return Group(Text(said), table)


def _cells(one: Overview) -> tuple[str, ...]:
    counts, history = one.counts, one.history
    states = []
    for state in Status:
        rows, colour = counts.by_state[state], COLOURS.get(state)
        states.append(f"[{colour}]{rows:,}[/]" if colour and rows else f"{rows:,}")
    late = [f"[red]{found}[/]" if found.count else "0" for found in (one.stuck, one.overdue)]
    rate, p95 = history.success_rate, history.running.p95
    return (
        plain(counts.domain),
        *states,
        spoken(one.oldest.seconds) if one.oldest else "",
        *late,
        f"{history.per_minute:.2f}",
        "" if rate is None else f"{100 * rate:.1f} %",
        "" if p95 is None else spoken(p95),
        sparkline([bar.ended for bar in history.bars[-SHOWN_BARS:]]),
    )


def sparkline(values: list[int]) -> str:
    """Return a line of bars, the highest for the largest value, the lowest for none."""
    largest = max(values, default=0)
    if not largest:
        return BARS[0] * len(values)
    top = len(BARS) - 1
    return "".join(BARS[-(-value * top // largest)] for value in values)
