"""The dashboard at the end of the demonstration, with a worker behind it."""

from __future__ import annotations

from rich.console import Console

from portfolio.main import Application
from portfolio.optional import present
from portfolio.process import running, worker_command, worker_environment
from tasktrail import Settings
from tasktrail.cli.serve import serve_to_whoever_looks


def show(demo: Application, settings: Settings, console: Console) -> None:
    """Serve what the demonstration left, until Ctrl-C.

    Args:
        demo: the application; what is retried on the dashboard runs in a worker of its own.
        settings: where database and broker are.
        console: where to say how to get there.

    Raises:
        TasktrailError: a server cannot be used.
    """
    plans = [module.PLAN for _, module in present("plan")]
    log = settings.home / "demo" / "worker.log"
    command = worker_command("portfolio.demo_worker", 2, "prefork", "INFO")
    console.print("[bold]Look at it:[/] what was tracked, retry or cancel some of it")
    with running(command, worker_environment(settings), log):
        serve_to_whoever_looks(
            demo.trail,
            plan=plans[0] if plans else None,
            say=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
