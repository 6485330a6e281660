"""``portfolio daily``, which runs daily updates, and ``portfolio beat``, which does so on schedule."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

import typer

from portfolio.cli_common import (
    DAY_FORMAT,
    DEFAULT_TIMEOUT,
    Timeout,
    Wait,
    as_day,
    opened,
    report,
    wait_for,
)
from portfolio.daily.tracking import daily_fields
from portfolio.models import ETF_PRICES, EXCHANGE_RATES
from portfolio.process import run_in_foreground, worker_environment

daily = typer.Typer(help="Daily updates.", no_args_is_help=True)

LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@daily.command("run")
def run_daily(
    day: Annotated[
        datetime | None, typer.Option(formats=DAY_FORMAT, help="The day; by default today, in UTC.")
    ] = None,
    update_type: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="exchange_rates, etf_prices or etf_prices_<etf id>; may be repeated. Default: the first two",
        ),
    ] = None,
    restart: Annotated[bool, typer.Option(help="Start a failed or cancelled update again.")] = False,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Enqueue the daily updates of a day; a worker decides whether they are due, and does them."""
    with opened() as application:
        now = application.clock()
        wanted = as_day(day) or now.astimezone(UTC).date()
        rows = [daily_fields(wanted, one, now=now) for one in update_type or (EXCHANGE_RATES, ETF_PRICES)]
        jobs = []
        for fields in rows:
            job = application.tasks.update_daily.enqueue(
                on_duplicate="restart" if restart else "return", **fields
            )
            due = fields.get("next_attempt_at")
            report(job, due)
            if due is None:
                jobs.append(job)
        if wait and jobs:
            wait_for(application, jobs, timeout)


def beat(
    loglevel: Annotated[LogLevel, typer.Option(help="What is logged.", case_sensitive=False)] = "INFO",
) -> None:
    """Run Celery beat, which starts the daily updates on schedule, until it is stopped.

    Exchange rates at 16:30 UTC, ETF prices at 20:00, the roll call at 21:45. One beat is enough.
    """
    with opened() as application:
        settings = application.trail.settings
        home = settings.home.resolve()
        home.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "celery", "--app", "portfolio.worker", "beat"),
            *(f"--schedule={home / 'celerybeat-schedule'}", f"--pidfile={home / 'celerybeat.pid'}"),
            f"--loglevel={loglevel}",
        ]
        environment = worker_environment(settings)
        application.trail.engines.dispose()
        code = run_in_foreground(command, environment)
    sys.exit(code)
