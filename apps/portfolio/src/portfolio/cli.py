"""The ``portfolio`` command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console

from portfolio import demo as demonstration
from portfolio.database import upgrade
from portfolio.main import Application, build
from portfolio.process import worker_command, worker_environment
from portfolio.rates.tracking import DEFAULT_CURRENCIES, update_fields
from tasktrail import Settings
from tasktrail.cli import run
from tasktrail.embedded import EmbeddedStack

app = typer.Typer(
    name="portfolio",
    help="The background jobs of an ETF-portfolio backend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Add --traceback to any command to see the whole traceback of an error.",
)
database = typer.Typer(help="The database schema.", no_args_is_help=True)
rates = typer.Typer(help="Exchange rates.", no_args_is_help=True)
app.add_typer(database, name="db")
app.add_typer(rates, name="rates")


@contextmanager
def _application(*, ready: bool = True) -> Iterator[Application]:
    """Build the application on the servers named by the environment, else on the embedded ones."""
    with EmbeddedStack(Settings.load()) as settings:
        application = build(settings)
        try:
            if ready:
                application.trail.check()
            yield application
        finally:
            application.trail.engines.dispose()


@database.command("upgrade")
def upgrade_database() -> None:
    """Apply the pending migrations."""
    with _application(ready=False) as application:
        with application.trail.engines.errors():
            upgrade(application.trail.engines.sync)
        typer.echo("the database is up to date")


@rates.command("update")
def update_rates(
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="The day, e.g. 2026-10-30.")],
    currency: Annotated[
        list[str] | None, typer.Option("--currency", "-c", help="A currency; may be repeated.")
    ] = None,
    restart: Annotated[bool, typer.Option(help="Start a failed or cancelled update again.")] = False,
) -> None:
    """Enqueue the update of one day's exchange rates; a worker fetches them."""
    wanted = [code.strip().upper() for code in currency] if currency else list(DEFAULT_CURRENCIES)
    with _application() as application:
        task = application.tasks.update_exchange_rates
        enqueued = task.enqueue(
            on_duplicate="restart" if restart else "return",
            **update_fields(day.date(), wanted, application.source.name),
        )
    Console().print(f"{enqueued.domain} {enqueued.id}: {enqueued.outcome}, {enqueued.status}")


@app.command()
def worker(
    concurrency: Annotated[int, typer.Option(min=1, help="How many jobs at once.")] = 2,
    pool: Annotated[str, typer.Option(help="prefork, threads or solo.")] = "prefork",
    loglevel: Annotated[str, typer.Option(help="Celery's log level.")] = "INFO",
) -> None:
    """Run a Celery worker until it is stopped."""
    with _application() as application:
        environment = worker_environment(application.trail.settings)
        command = worker_command("portfolio.worker", concurrency, pool, loglevel)
        application.trail.engines.dispose()
        with subprocess.Popen(command, env=environment) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # the worker got the same Ctrl-C and finishes its jobs
                code = process.wait()
    sys.exit(code)


@app.command()
def demo() -> None:
    """Run the main job end to end on real servers and show what the database says."""
    with EmbeddedStack(Settings.load()) as settings:
        sys.exit(demonstration.run(settings, Console()))


def main() -> None:
    """Run the command; the entry point of the package."""
    run(app)
