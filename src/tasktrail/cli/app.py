"""The ``tasktrail`` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from tasktrail.cli import dev, errors

app = typer.Typer(
    name="tasktrail",
    help="A durable, typed row in PostgreSQL for every Celery job.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Add --traceback to any command to see the whole traceback of an error.",
)
app.add_typer(dev.app, name="dev")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("tasktrail"))
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command; the entry point of the package."""
    errors.run(app)
