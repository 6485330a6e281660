"""``tasktrail migrate quarantine``: rows that somebody is to look at."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tasktrail.cli.migrate import AsJson, runner_of
from tasktrail.cli.migrate_plan import Plan
from tasktrail.display import visible
from tasktrail.migration.quarantine import Quarantine
from tasktrail.migration.state import MIRRORING

app = typer.Typer(help="Legacy rows that somebody is to look at.", no_args_is_help=True)

Table = Annotated[str, typer.Argument(help="The table, by its name in the plan.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only rows with this reason.")]


@app.command("list")
def list_(context: typer.Context, plan: Plan = None, as_json: AsJson = False) -> None:
    """List what is quarantined, by table and reason."""
    with runner_of(context, plan, "migrate quarantine") as runner:
        heaps = Quarantine(runner.workspace).heaps(runner.session)
    if as_json:
        fields = ("table", "reason", "rows", "accepted", "example")
        typer.echo(json.dumps([{name: getattr(heap, name) for name in fields} for heap in heaps]))
        return
    for heap in heaps:
        typer.echo(
            f"{heap.table} {heap.reason}: {heap.rows} rows, {heap.accepted} accepted; e.g. {heap.example}"
        )
    if not heaps:
        typer.echo("nothing is quarantined")


@app.command()
def show(context: typer.Context, table: Table, key: str, plan: Plan = None) -> None:
    """Show what is known of one legacy row, whatever became of it."""
    with runner_of(context, plan, "migrate quarantine") as runner:
        row = Quarantine(runner.workspace).show(runner.session, table, key)
    for name, value in row.items():
        if value is not None:
            typer.echo(f"{name}: {visible(str(value))}")


@app.command()
def redrive(
    context: typer.Context,
    table: Annotated[str | None, typer.Argument(help="The table; by default all.")] = None,
    reason: Reason = None,
    plan: Plan = None,
) -> None:
    """Drive quarantined rows through the rules again, after one was changed."""
    with runner_of(context, plan, "migrate quarantine") as runner:
        runner.journal.require(runner.session, "redrive", *MIRRORING)
        reconcilers = runner.workspace.reconcilers(runner.session)
        done = Quarantine(runner.workspace).redrive(runner.session, reconcilers, table, reason)
    typer.echo(f"{done['driven']} rows were driven, {done['released']} are quarantined no more")


@app.command()
def accept(
    context: typer.Context,
    table: Table,
    reason: Annotated[str, typer.Option("--reason", help="The reason of the rows.")],
    note: Annotated[str, typer.Option("--note", help="Why they may stay; kept with each row.")],
    key: Annotated[str | None, typer.Option("--key", help="Only this row.")] = None,
    plan: Plan = None,
) -> None:
    """Accept that rows are not migrated, by name."""
    with runner_of(context, plan, "migrate quarantine") as runner:
        count = Quarantine(runner.workspace).accept(
            runner.session, table=table, reason=reason, note=note, key=key
        )
    typer.echo(f"{count} rows accepted")
