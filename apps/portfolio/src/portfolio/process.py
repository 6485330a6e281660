"""Starting a Celery worker as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from tasktrail import Settings

GRACE: Final = 20.0
"""How long a worker may take to finish its running jobs after SIGTERM, in seconds."""


def worker_command(module: str, concurrency: int, pool: str, loglevel: str) -> list[str]:
    """Return the command line of a worker.

    Args:
        module: the module that holds the Celery application as ``app``.
        concurrency: how many jobs at once.
        pool: ``prefork``, ``threads`` or ``solo``.
        loglevel: Celery's log level.
    """
    return [
        *(sys.executable, "-m", "celery", "--app", module, "worker"),
        *(f"--concurrency={concurrency}", f"--pool={pool}", f"--loglevel={loglevel}"),
        *("--without-gossip", "--without-mingle"),
    ]


def worker_environment(settings: Settings, **more: str) -> dict[str, str]:
    """Return the environment in which a worker finds the servers of these settings."""
    urls = {"TASKTRAIL_DATABASE_URL": settings.database_url, "TASKTRAIL_BROKER_URL": settings.broker_url}
    given = {name: url.get_secret_value() for name, url in urls.items() if url is not None}
    return {**os.environ, **given, "TASKTRAIL_HOME": str(settings.home.resolve()), **more}


def run_in_foreground(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a process in our place: it gets the SIGTERM that is meant for us, and we outlive it.

    Ctrl-C needs no passing on, since a terminal sends it to both. We must not ignore it in the system's
    sense, which the process would inherit.

    Args:
        command: its command line.
        environment: its environment.

    Returns:
        Its exit code; 128 plus the signal's number, as a shell has it, if a signal ended it.
    """
    asked_to_end = False
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal asked_to_end
        if number == signal.SIGTERM:
            asked_to_end = True
            for process in started:
                process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with subprocess.Popen(command, env=dict(environment)) as process:
            started.append(process)
            try:
                if asked_to_end:  # while it was being started
                    process.terminate()
                code = process.wait()
            except BaseException:
                process.terminate()
                raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for as long as the block takes, then let it finish in peace.

    Args:
        command: its command line.
        environment: its environment.
        log: the file its output is appended to.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
