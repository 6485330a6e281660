"""``tasktrail maintain``: the maintenance loop as a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Final, Literal

import typer

from tasktrail import schema
from tasktrail.celery import Trail
from tasktrail.cli.application import trail_of
from tasktrail.cli.comparing import CompareEvery, comparing
from tasktrail.cli.migrate_plan import Plan, load_plan
from tasktrail.migration.workspace import Workspace

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

AWAKE_EVERY: Final = 0.5
"""Longest time until a signal is heeded, in seconds."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def maintain(
    context: typer.Context,
    loglevel: Annotated[
        LogLevel, typer.Option(help="What is logged, on stderr.", case_sensitive=False)
    ] = "INFO",
    plan: Plan = None,
    compare_every: CompareEvery = None,
) -> None:
    """Dispatch due rows, rescue lost ones, prune old ones; until SIGTERM or Ctrl-C.

    For where TASKTRAIL_MAINTENANCE=false switches it off in the workers. Of several that run, one leads.
    With --compare-every it also compares both sides in the parallel run of the migration that --plan names.
    """
    trail = trail_of(context)
    try:
        chores = (
            comparing(Workspace(load_plan(plan), trail.engines, trail.schema), compare_every)
            if compare_every is not None
            else ()
        )
        with trail.engines.pooled() as db:
            schema.require(db, trail.registry, schema=trail.schema)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=loglevel)
        run_until_stopped(trail.maintenance(chores).run, started=lambda: typer.echo(_first_line(trail)))
        typer.echo("maintenance has ended")
    finally:
        trail.dispose()


def run_until_stopped(work: Callable[[threading.Event], None], *, started: Callable[[], None]) -> None:
    """Run something until the process gets a SIGTERM or SIGINT; a second signal ends the process at once.

    The work is on a thread of its own, so that the handler of a signal, which runs on the main thread, never
    interrupts a statement, nor finds the lock of the event held by the very code it interrupted.

    Args:
        work: is given an event and returns soon after it is set.
        started: called when signals are heeded and the work begins.

    Raises:
        BaseException: what the work raised.
    """
    stop = threading.Event()
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001  # raised again on the main thread
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    with _heeding_signals(stop):
        started()
        threading.Thread(target=run, name="tasktrail maintenance", daemon=True).start()
        while not outcome.done():
            # Any thread may get a signal; Python runs its handler on this one, once it is awake.
            wait([outcome], timeout=AWAKE_EVERY)
        outcome.result()


@contextmanager
def _heeding_signals(stop: threading.Event) -> Iterator[None]:
    def heed(number: int, _: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop.set()

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, heed)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_line(trail: Trail) -> str:
    domains = ", ".join(domain.name for domain in trail.registry) or "no domain at all"
    return f"maintaining {domains} (pid {os.getpid()})"
