"""``tasktrail migrate archive``, ``restore`` and ``drop``: what becomes of the legacy tables in the end."""

from __future__ import annotations

from typing import Annotated

import typer

from tasktrail.cli.errors import GATE_CLOSED
from tasktrail.cli.migrate import Check, Undo, check_step, runner_of
from tasktrail.cli.migrate_plan import Plan
from tasktrail.migration import archive as archiving
from tasktrail.migration.copies import Archive, recorded
from tasktrail.migration.drop import drop as drop_tables
from tasktrail.migration.drop import gate
from tasktrail.migration.restore import restore as restore_copies
from tasktrail.migration.restore import restore_dropped
from tasktrail.migration.state import REVERSED, Phase


def archive(context: typer.Context, plan: Plan = None, check: Check = False, undo: Undo = False) -> None:
    """Copy the legacy tables, and make them again from the copies for a test."""
    with runner_of(context, plan, "migrate archive") as runner:
        if check:
            check_step(runner, "archive the legacy tables", *REVERSED)
        if undo:
            archiving.undo_archive(runner.session, runner.workspace)
            typer.echo("the archives are gone")
            return
        archives = archiving.archive(runner.session, runner.workspace)
    for one in archives:
        typer.echo(_said(one))
    typer.echo("the legacy tables were made again from them for a test, and are the same")


def restore(
    context: typer.Context,
    plan: Plan = None,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="SCHEMA", help="Make copies in this schema, and change nothing else."),
    ] = None,
) -> None:
    """Make the legacy tables again after they were dropped; exit code 2 when not all is as it was."""
    with runner_of(context, plan, "migrate restore") as runner:
        if into is not None:
            for made in restore_copies(runner.session, runner.workspace, into):
                typer.echo(f"{made['written']} is there")
            typer.echo(f"drop the schema {into} when nobody needs it any more")
            return
        notes = restore_dropped(runner.session, runner.workspace)
        archives = recorded(runner.session, runner.workspace)
    for one in archives:
        typer.echo(f"{one.definition['written']} is there again, with {one.measure}")
    for note in notes:
        typer.echo(f"not as it was: {note}")
    raise typer.Exit(GATE_CLOSED if notes else 0)


def drop(
    context: typer.Context,
    plan: Plan = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the gate is open.")] = False,
) -> None:
    """Drop the legacy tables; exit code 2 when a condition is not met, or --yes is missing."""
    with runner_of(context, plan, "migrate drop") as runner:
        if yes and not check:
            dropped = drop_tables(runner.session, runner.workspace)
            for one in dropped:
                typer.echo(f"{one.definition['written']} is gone; {_said(one)}")
            if not dropped:
                typer.echo("they were dropped already")
            return
        state = runner.journal.require(runner.session, "drop the legacy tables")
        reasons = [] if state.phase is Phase.DROPPED else gate(runner.session, runner.workspace)
        archives = recorded(runner.session, runner.workspace)
    if state.phase is Phase.DROPPED:
        typer.echo("they were dropped already")
        return
    for reason in reasons:
        typer.echo(f"the gate is closed: {reason}")
    if not reasons:
        typer.echo("the gate is open")
        for one in archives:
            typer.echo(f"to be dropped: {one.definition['written']}; {_said(one)}")
    if not check and not reasons:
        typer.echo("nothing was changed; drop them with `tasktrail migrate drop --yes`")
    raise typer.Exit(0 if check and not reasons else GATE_CLOSED)


def _said(one: Archive) -> str:
    return f"{one.name} holds {one.measure}"
