"""Errors on the command line: one clear line and exit code 1; the traceback only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from tasktrail.engines import is_connection_error
from tasktrail.errors import GateClosed, TasktrailError

TRACEBACK_FLAG = "--traceback"
GATE_CLOSED = 2
"""Exit code when a condition is not met, as for a difference that was found."""


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> None:
    """Run a Typer application as the program; never returns.

    Exit codes: 0 for success, 1 for an error, 2 for a closed gate or for a command
    line that cannot be understood.
    ``--traceback`` may stand anywhere on the command line.

    Args:
        app: the application.
        arguments: the command line; by default the process's own.

    Raises:
        SystemExit: always.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    wants_traceback = TRACEBACK_FLAG in words
    words = [word for word in words if word != TRACEBACK_FLAG]
    try:
        app(args=words)
    except TasktrailError as error:
        if wants_traceback:
            raise
        _complain(str(error), GATE_CLOSED if isinstance(error, GateClosed) else 1)
    except DBAPIError as error:
        if wants_traceback:
            raise
        kind = "the database cannot be used" if is_connection_error(error) else "the database refused"
        reason = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
        _complain(f"{kind}: {reason[0]}")
    except OSError as error:
        if wants_traceback:
            raise
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _complain(message: str, code: int = 1) -> None:
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error:", "bold red"), " ", line))
    raise SystemExit(code)
