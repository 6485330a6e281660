"""``make demo``: real data through real workers, and what the database says about it afterwards."""

from __future__ import annotations

from rich.console import Console

from portfolio.config import PortfolioSettings
from portfolio.database import upgrade
from portfolio.demo import etfs, rates, showing
from portfolio.demo.stage import Stage
from portfolio.etfs.sources import BundledPrices
from portfolio.main import Application, build
from portfolio.optional import present
from portfolio.process import running, worker_command, worker_environment
from portfolio.rates.flaky import FlakySource
from portfolio.rates.sources import BundledHistory
from tasktrail import Settings

RETRY_BASE = 0.5
"""Seconds before the first retry, so that nobody waits a minute for a demonstration."""


def application(settings: Settings) -> Application:
    """Build the application on bundled data, with rates that fail on one day as planned, and short delays."""
    source = BundledHistory()
    failures = {rates.Days.of(source).flaky: rates.FLAKY_FAILURES}
    flaky = FlakySource(source, failures, settings.home / "demo" / "calls")
    return build(settings, PortfolioSettings(retry_base=RETRY_BASE), source=flaky, prices=BundledPrices())


def run(settings: Settings, console: Console, *, is_short: bool = False, is_served: bool = False) -> int:
    """Run the demonstration.

    Args:
        settings: where database and broker are.
        console: where to show it.
        is_short: leave out the parts of packages that may be missing.
        is_served: end with the dashboard, until Ctrl-C.

    Returns:
        The exit code: 0 only if the database says what it should.

    Raises:
        TasktrailError: a server cannot be used, or the workers did not finish in time.
    """
    demo = application(settings)
    try:
        is_well = _run(demo, settings, console)
    finally:
        demo.trail.engines.dispose()
    outcomes = [] if is_short else [part.play(settings, console) for _, part in present("demo")]
    if is_served:
        shown = application(settings)
        try:
            showing.show(shown, settings, console)
        finally:
            shown.trail.engines.dispose()
    return 0 if all([is_well, *outcomes]) else 1


def _run(demo: Application, settings: Settings, console: Console) -> bool:
    console.print("[bold]1.[/] applying the migrations to PostgreSQL")
    with demo.trail.engines.errors():
        upgrade(demo.trail.engines.sync)
    demo.trail.check()
    log = settings.home / "demo" / "worker.log"
    console.print(f"[bold]2.[/] starting a Celery worker with two processes (its log: {log})")
    command = worker_command("portfolio.demo_worker", 2, "prefork", "INFO")
    with running(command, worker_environment(settings), log) as worker:
        stage = Stage(demo, console, worker, log)
        outcomes = [part(stage) for part in (rates.play, etfs.play, etfs.play_daily)]
    return all(outcomes)
