"""The ``portfolio`` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Literal, TypeAlias

import typer
from rich.console import Console
from sqlalchemy import select
from sqlalchemy.orm import Session

from portfolio import demo as demonstration
from portfolio.cli_common import DEFAULT_TIMEOUT, Timeout, Wait, opened, report, wait_for
from portfolio.cli_daily import LogLevel, beat, daily
from portfolio.cli_etfs import etf
from portfolio.database import upgrade
from portfolio.main import Application
from portfolio.models import ExchangeRateUpdateTracking
from portfolio.optional import present
from portfolio.process import run_in_foreground, worker_command, worker_environment
from portfolio.rates.backfill import plan_backfill
from portfolio.rates.tracking import DEFAULT_CURRENCIES, update_fields
from tasktrail import Settings, TrackingRef
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
app.add_typer(etf, name="etf")
app.add_typer(daily, name="daily")
app.command()(beat)

for _name, _module in present("cli"):
    app.add_typer(_module.app, name=_name)

Currencies: TypeAlias = Annotated[
    list[str] | None, typer.Option("--currency", "-c", help="A currency; may be repeated.")
]
Pool: TypeAlias = Literal["prefork", "threads", "solo"]


@database.command("upgrade")
def upgrade_database() -> None:
    """Apply the pending migrations."""
    with opened(ready=False) as application:
        with application.trail.engines.errors():
            upgrade(application.trail.engines.sync)
        typer.echo("the database is up to date")


@rates.command("update")
def update_rates(
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="The day, e.g. 2026-10-30.")],
    currency: Currencies = None,
    restart: Annotated[bool, typer.Option(help="Start a failed or cancelled update again.")] = False,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Enqueue the update of one day's exchange rates; a worker fetches them."""
    with opened() as application:
        enqueued = application.tasks.update_exchange_rates.enqueue(
            on_duplicate="restart" if restart else "return",
            **update_fields(day.date(), _codes(currency), application.source.name),
        )
        report(enqueued)
        if wait:
            wait_for(application, [enqueued], timeout)


@rates.command("backfill")
def backfill_rates(
    first: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, e.g. 2026-10-01.")
    ],
    last: Annotated[
        datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, e.g. 2026-10-30.")
    ],
    currency: Currencies = None,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Enqueue the update of every published day in a range; those tracked already stay as they are."""
    backfill = plan_backfill(first.date(), last.date(), datetime.now(UTC))
    with opened() as application:
        enqueued = application.tasks.update_exchange_rates.enqueue_many(
            update_fields(day, _codes(currency), application.source.name) for day in backfill.days
        )
        typer.echo(
            f"{len(backfill.days)} published days: {enqueued.created} new rows, {enqueued.existing} were "
            f"there already; {enqueued.dispatched} messages sent"
        )
        typer.echo(
            f"left out: {backfill.without} days without rates, "
            f"{backfill.to_come} whose rates are still to come"
        )
        if wait and backfill.days:
            wait_for(application, _rows_of(application, backfill.days), timeout)


def _rows_of(application: Application, days: Sequence[date]) -> list[TrackingRef]:
    row = ExchangeRateUpdateTracking
    query = select(row.id).where(row.update_date.in_(days)).order_by(row.update_date)
    with Session(application.trail.engines.sync) as db:
        return [TrackingRef(row.__tracking__.domain, tracking_id) for tracking_id in db.scalars(query)]


def _codes(currencies: list[str] | None) -> list[str]:
    return [code.strip().upper() for code in currencies] if currencies else list(DEFAULT_CURRENCIES)


@app.command()
def worker(
    concurrency: Annotated[int, typer.Option(min=1, help="How many jobs at once.")] = 2,
    pool: Annotated[Pool, typer.Option(help="What the jobs run in.")] = "prefork",
    loglevel: Annotated[LogLevel, typer.Option(help="What is logged.", case_sensitive=False)] = "INFO",
) -> None:
    """Run a Celery worker until it is stopped."""
    with opened() as application:
        environment = worker_environment(application.trail.settings)
        command = worker_command("portfolio.worker", concurrency, pool, loglevel)
        application.trail.engines.dispose()
        code = run_in_foreground(command, environment)
    sys.exit(code)


@app.command()
def demo(
    short: Annotated[bool, typer.Option("--short", help="Leave the migration of legacy tables out.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="End with the dashboard, until Ctrl-C.")] = False,
) -> None:
    """Run the main job end to end on real servers and show what the database says."""
    with EmbeddedStack(Settings.load()) as settings:
        sys.exit(demonstration.run(settings, Console(), is_short=short, is_served=serve))


def main() -> None:
    """Run the command; the entry point of the package."""
    run(app)
