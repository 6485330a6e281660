"""``portfolio legacy``: made-up legacy rows, and old workers that write to them, for rehearsals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from portfolio.cli_common import DAY_FORMAT, as_day, opened
from portfolio.legacy import generate as generation
from portfolio.legacy.simulate import Simulation, Summary
from portfolio.legacy.workers import DAYS
from tasktrail import TasktrailError

app = typer.Typer(help="The old system: rows and workers for rehearsals.", no_args_is_help=True)


class OldWritesFailed(TasktrailError):
    """Writes of the old workers ended in errors."""


@app.command("generate")
def generate(
    rows: Annotated[int, typer.Option(min=1, help="How many, in all three tables together.")],
    dirty: Annotated[float, typer.Option(min=0, max=1, help="Which part of them is dirty.")] = 0.02,
    seed: Annotated[int, typer.Option(help="The same seed and --until make the same rows.")] = 1,
    until: Annotated[
        datetime | None, typer.Option(formats=DAY_FORMAT, help="The last day; by default today, in UTC.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add to the rows that are there.")] = False,
) -> None:
    """Fill the legacy tables with rows as the old system left them, on the ECB's calendar."""
    last = as_day(until) or datetime.now(UTC).date()
    with opened(ready=False) as application:
        engine = application.trail.engines.sync
        with application.trail.engines.errors(), _bar("generating", rows) as (progress, bar):
            made = generation.generate(
                engine,
                rows=rows,
                dirty=dirty,
                seed=seed,
                until=last,
                append=append,
                report=lambda count: progress.advance(bar, count),
            )
    for table, count in made.rows.items():
        typer.echo(f"{table}: {count} rows, {made.dirty[table].total()} of them dirty")
    typer.echo(f"{made.total} rows until {last}, seed {seed}")


@app.command("simulate")
def simulate(
    rate: Annotated[float, typer.Option(min=0.1, help="Writes a second, of all processes together.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = 60.0,
    processes: Annotated[int, typer.Option(min=1, max=64, help="How many old workers.")] = 2,
    seed: Annotated[int, typer.Option(help="Decides what they do.")] = 1,
    days: Annotated[int, typer.Option(min=10, help="How many of the newest days they are busy with.")] = DAYS,
) -> None:
    """Write to the legacy tables as the old workers do; Ctrl-C ends it early, with its summary."""
    with opened(ready=False) as application:
        url = application.trail.engines.sync.url
        with application.trail.engines.errors():
            simulation = Simulation(url, rate=rate, processes=processes, seed=seed, days=days)
            summary = _simulated(simulation, seconds)
    _show(summary)
    if summary.errors:
        count = summary.errors.total()
        raise OldWritesFailed(f"{count} writes of the old workers failed; the first: {summary.first_error}")


def _simulated(simulation: Simulation, seconds: float) -> Summary:
    with simulation, _bar("simulating", seconds) as (progress, bar):
        began = time.monotonic()
        try:
            while (elapsed := time.monotonic() - began) < seconds:
                progress.update(bar, completed=round(elapsed))
                time.sleep(min(0.2, seconds - elapsed))
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
        return simulation.stop()


def _show(summary: Summary) -> None:
    for kind, count in sorted(summary.changes.items()):
        typer.echo(f"{kind}: {count}")
    typer.echo(
        f"{summary.changes.total()} changes in {summary.seconds:.1f} s, "
        f"{summary.changes_per_second:.1f} a second"
    )
    milliseconds = [f"{1000 * value:.1f}" for value in (summary.p50, summary.p99, summary.longest)]
    typer.echo("latency p50 {} ms, p99 {} ms, longest {} ms".format(*milliseconds))
    for kind, count in sorted(summary.errors.items()):
        typer.echo(f"{kind}: {count}")
    typer.echo(f"errors: {summary.errors.total()}")


@contextmanager
def _bar(what: str, total: float) -> Iterator[tuple[Progress, TaskID]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress, progress.add_task(what, total=round(total))
