"""The ``tasktrail`` command."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Annotated

import typer

from tasktrail.cli import (
    dev,
    errors,
    migrate,
    migrate_archive,
    migrate_cutover,
    migrate_parallel,
    migrate_quarantine,
    tokens,
)
from tasktrail.cli.application import VARIABLE, load_trail
from tasktrail.cli.doctor import doctor
from tasktrail.cli.look import failures, list_, show, stats, status
from tasktrail.cli.maintain import maintain
from tasktrail.cli.operate import cancel, retry
from tasktrail.cli.serve import serve
from tasktrail.cli.watch import watch

app = typer.Typer(
    name="tasktrail",
    help="A durable, typed row in PostgreSQL for every Celery job.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Add --traceback to any command to see the whole traceback of an error.",
)
app.add_typer(dev.app, name="dev")
migrate.app.add_typer(migrate_quarantine.app, name="quarantine")
for command in (
    migrate_parallel.parallel,
    migrate_parallel.compare,
    migrate_parallel.drift,
    migrate_cutover.cutover,
    migrate_cutover.rollback,
    migrate_archive.archive,
    migrate_archive.restore,
    migrate_archive.drop,
):
    migrate.app.command()(command)
app.add_typer(migrate.app, name="migrate")
app.add_typer(tokens.app, name="tokens")
app.command()(serve)
for read in (status, show, failures, stats, watch):
    app.command()(read)
app.command("list")(list_)
app.command()(maintain)
app.command()(doctor)
app.command()(retry)
app.command()(cancel)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("tasktrail"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    application: Annotated[
        str | None,
        typer.Option(
            "--app",
            "-A",
            envvar=VARIABLE,
            metavar="MODULE:ATTRIBUTE",
            help="Your application: a Trail, a Celery application with one, or a function that returns one.",
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
    context.obj = partial(load_trail, application)


def main() -> None:
    """Run the command; the entry point of the package."""
    errors.run(app)
