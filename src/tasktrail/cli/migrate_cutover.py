"""``tasktrail migrate cutover`` and ``rollback``: who has the truth."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Final

import typer

from tasktrail.cli.durations import duration
from tasktrail.cli.migrate import DIFFERENT, AsJson, Check, runner_of
from tasktrail.cli.migrate_plan import Plan
from tasktrail.migration.cutover import Cutover
from tasktrail.migration.difference import Difference
from tasktrail.migration.gate import Conditions
from tasktrail.migration.rollback import Rollback

DEFAULTS: Final = Conditions()

Yes = Annotated[bool, typer.Option("--yes", help="Do it; a closed gate is not opened by it.")]


def cutover(
    context: typer.Context,
    plan: Plan = None,
    yes: Yes = False,
    check: Check = False,
    clean_passes: Annotated[
        int, typer.Option(min=0, help="How many comparisons in a row must have found nothing.")
    ] = DEFAULTS.clean_passes,
    max_lag: Annotated[
        str, typer.Option(metavar="DURATION", help="How old a change may be that is not applied yet.")
    ] = "60s",
    window: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the legacy tables stay at least.")
    ] = "7d",
) -> None:
    """Make the new tables the truth; the legacy ones follow from then on.

    Exit code 2 when the gate is closed, or without --yes.
    """
    conditions = Conditions(
        clean_passes=clean_passes,
        seconds=duration("--max-lag", max_lag).total_seconds(),
        second_window=duration("--window", window),
    )
    with runner_of(context, plan, "migrate cutover") as runner:
        turn = Cutover(runner.workspace, runner.session)
        if check or not yes:
            reasons = turn.gate(conditions)
            for reason in reasons:
                typer.echo(f"closed: {reason}")
            if not reasons:
                typer.echo("the gate is open; go on with `tasktrail migrate cutover --yes`")
            raise typer.Exit(0 if check and not reasons else DIFFERENT)
        turned = turn.run(conditions)
    typer.echo("the new tables are the truth" if turned else "the new tables were the truth already")


def rollback(
    context: typer.Context,
    plan: Plan = None,
    yes: Yes = False,
    check: Check = False,
    accept_losses: Annotated[
        bool, typer.Option("--accept-losses", help="Also when the legacy tables cannot hold all of it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the legacy tables the truth again, with all that happened since.

    Exit code 2 when rows are in the way, or without --yes.
    """
    with runner_of(context, plan, "migrate rollback") as runner:
        turn = Rollback(runner.workspace, runner.session)
        if check or not yes:
            losses = turn.losses()
            _show(losses, as_json=as_json)
            raise typer.Exit(0 if check and not losses else DIFFERENT)
        turned = turn.run(accept_losses=accept_losses)
    typer.echo("the legacy tables are the truth" if turned else "the legacy tables were the truth already")


def _show(losses: list[Difference], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(loss) for loss in losses]))
        return
    for loss in losses:
        said = f": {loss.expected} as {loss.found}" if loss.expected else f": {loss.found}"
        typer.echo(f"{loss.table} {loss.key} {loss.what}{said}")
    if not losses:
        typer.echo("the legacy tables can hold everything; go on with `tasktrail migrate rollback --yes`")
