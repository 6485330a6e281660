"""``tasktrail migrate``: legacy tables into tracking tables, step by step."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from tasktrail.chores import doing
from tasktrail.cli.application import trail_of
from tasktrail.cli.comparing import CompareEvery, comparing
from tasktrail.cli.maintain import run_until_stopped
from tasktrail.cli.migrate_plan import Plan, load_plan
from tasktrail.cli.printing import plain
from tasktrail.errors import ConfigurationError
from tasktrail.migration import sync as live_sync
from tasktrail.migration.account import Account
from tasktrail.migration.backfill import CONNECTIONS, Backfill
from tasktrail.migration.carrier import SHARE, Carrier
from tasktrail.migration.copier import Progress as Copied
from tasktrail.migration.follower import keep_following
from tasktrail.migration.interruption import explained
from tasktrail.migration.runner import Runner
from tasktrail.migration.state import MIRRORING, NEXT_COMMAND, REVERSED, Phase
from tasktrail.migration.steps import obstacles, troubles
from tasktrail.migration.sync import Lag
from tasktrail.migration.throttle import Throttle
from tasktrail.migration.verify import Verdict
from tasktrail.migration.workspace import Workspace

DIFFERENT: Final = 2
"""Exit code when something is not as it should be."""

app = typer.Typer(help="Move legacy tables into tracking tables while both are in use.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Undo = Annotated[bool, typer.Option("--undo", help="Take this step back.")]
Check = Annotated[bool, typer.Option("--check", help="Only say whether it could be done.")]


@contextmanager
def runner_of(context: typer.Context, plan: str | None, purpose: str) -> Iterator[Runner]:
    """Open a connection for one command.

    Args:
        context: the command's.
        plan: ``module:attribute`` of the plan.
        purpose: what for; shown in ``pg_stat_activity``.

    Raises:
        ConfigurationError: no plan is named, or what is named is none.
        StepInterrupted: the database ended the command.
    """
    trail = trail_of(context)
    workspace = Workspace(load_plan(plan), trail.engines, trail.schema)
    try:
        with explained(f"tasktrail {purpose}"), workspace.session(purpose) as session:
            yield Runner(workspace, session)
    finally:
        trail.dispose()


def check_step(runner: Runner, step: str, *phases: Phase) -> NoReturn:
    """Say whether a step could be taken, and end the command.

    Args:
        runner: of the migration.
        step: in words.
        *phases: in which it can be taken, or was taken already.

    Raises:
        typer.Exit: with 0 when it could be taken, else with 2.
    """
    found = obstacles(runner.session, runner.workspace, step, *phases)
    for reason in found:
        typer.echo(f"in the way: {reason}")
    if not found:
        typer.echo("nothing is in the way")
    raise typer.Exit(DIFFERENT if found else 0)


@app.command("plan")
def plan_(context: typer.Context, plan: Plan = None, as_json: AsJson = False) -> None:
    """Compare the plan with the database, and say what would become of every row; writes no row."""
    with runner_of(context, plan, "migrate plan") as runner:
        planned = runner.plan()
    if as_json:
        typer.echo(json.dumps({"lines": _lines(planned.prediction.account), "surprises": planned.surprises}))
    else:
        console = _console()
        for note in planned.prediction.inspected.notes:
            console.print(f"[dim]{plain(note)}[/]")
        _show_account(planned.prediction.account, "would be")
        for surprise in planned.surprises:
            console.print(f"[yellow]changed since the copy:[/] {plain(surprise)}")
    raise typer.Exit(DIFFERENT if planned.surprises else 0)


@app.command()
def expand(context: typer.Context, plan: Plan = None, check: Check = False, undo: Undo = False) -> None:
    """Make sure the new tables are ready; from then on maintenance prunes none of their rows."""
    with runner_of(context, plan, "migrate expand") as runner:
        if check:
            check_step(runner, "expand")
        if undo:
            runner.undo_expand()
            typer.echo("undone")
        else:
            typer.echo("the new tables are ready" if runner.expand() else "they were ready already")


@app.command("sync")
def sync_(
    context: typer.Context,
    plan: Plan = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until SIGTERM or Ctrl-C.")] = False,
    share: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Part of the time in which --follow works.")
    ] = SHARE,
    compare_every: CompareEvery = None,
    check: Check = False,
    undo: Undo = False,
) -> None:
    """Put triggers on the legacy tables, and apply the changes that they noted."""
    if compare_every is not None and not follow:
        raise ConfigurationError("--compare-every: it belongs to --follow; to compare once, use compare")
    with runner_of(context, plan, "migrate sync") as runner:
        if check:
            check_step(runner, "sync", Phase.EXPANDED, *MIRRORING, *REVERSED)
        chores = comparing(runner.workspace, compare_every)
        if undo:
            runner.undo_sync()
            typer.echo("the triggers are off, and the copy is gone")
            return
        typer.echo("the triggers are on" if runner.sync() else "the triggers were on already")
        workspace = runner.workspace
        if not follow:
            applied = Carrier(workspace, runner.session).carry()
            typer.echo(f"{applied} changes applied")
    if follow:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
        with explained("tasktrail migrate sync --follow"), doing(chores):
            run_until_stopped(
                partial(keep_following, workspace, share=share),
                started=lambda: typer.echo("carrying changes over"),
            )


@app.command()
def backfill(
    context: typer.Context,
    plan: Plan = None,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Rows in a chunk.")] = None,
    error_budget: Annotated[
        int, typer.Option(min=0, help="How many rows of a table may make their transform fail.")
    ] = 0,
    share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Part of the time in which it works.")
    ] = 1.0,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="Only this table of the plan; repeatable.")
    ] = None,
    replication_lag: Annotated[
        float | None, typer.Option(min=0.0, help="Rest while a replica is further behind, in seconds.")
    ] = None,
    connections: Annotated[
        int, typer.Option(min=1, help="How many tables are copied at a time.")
    ] = CONNECTIONS,
    check: Check = False,
    undo: Undo = False,
) -> None:
    """Copy the rows that are there already, going on where the last run ended."""
    with runner_of(context, plan, "migrate backfill") as runner:
        if check:
            check_step(runner, "copy rows", *MIRRORING)
        if undo:
            runner.undo_backfill()
            typer.echo("the copy is gone")
            return
        with _bars() as report:
            runner.backfill(
                Backfill(
                    runner.workspace,
                    chunk_size=chunk_size,
                    error_budget=error_budget,
                    throttle=Throttle(share=share, replication_lag=replication_lag),
                    report=report,
                    only=table or (),
                    connections=connections,
                )
            )
        found = runner.account()
    for name in found.tables:
        typer.echo(found.equation(name))


@app.command()
def verify(context: typer.Context, plan: Plan = None, as_json: AsJson = False) -> None:
    """Find out in three ways whether the copy is right; exit code 2 when it is not."""
    with runner_of(context, plan, "migrate verify") as runner:
        verdicts = runner.verify()
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts]))
    else:
        for verdict in verdicts:
            _show_verdict(verdict)
    raise typer.Exit(DIFFERENT if any(verdict.differing for verdict in verdicts) else 0)


@app.command()
def account(
    context: typer.Context,
    plan: Plan = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print it as CSV.")] = False,
) -> None:
    """Say where every legacy row is; exit code 2 when one is not accounted for."""
    with runner_of(context, plan, "migrate account") as runner:
        found = runner.account()
    if as_json:
        typer.echo(json.dumps({"balanced": found.is_balanced, "lines": _lines(found)}))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, ["table", "kind", "fate", "reason", "rows"])
        writer.writeheader()
        writer.writerows(_lines(found))
    else:
        _show_account(found, "are")
    raise typer.Exit(0 if found.is_balanced else DIFFERENT)


@app.command()
def status(context: typer.Context, plan: Plan = None, as_json: AsJson = False) -> None:
    """Say how far the migration has come, how much is to be carried over, and what was done last.

    Exit code 2 when something is not as the phase promises, e.g. a trigger is missing.
    """
    with runner_of(context, plan, "migrate status") as runner:
        state = runner.journal.read(runner.session)
        events = runner.journal.events(runner.session)
        lag = live_sync.lag(runner.session, runner.workspace, side=None)
        wrong = troubles(runner.session, runner.workspace)
    phase = state.phase.value if state else "not planned"
    command = NEXT_COMMAND[state.phase] if state else "tasktrail migrate plan"
    if as_json:
        seen = {"phase": phase, "paused": bool(state and state.is_paused), "lag": asdict(lag)}
        more = {"next": command, "troubles": wrong, "events": events}
        typer.echo(json.dumps({**seen, **more}, default=str))
        raise typer.Exit(DIFFERENT if wrong else 0)
    typer.echo(f"{phase}{', paused' if state and state.is_paused else ''}; go on with `{command}`")
    typer.echo(_said(lag))
    for trouble in wrong:
        typer.echo(f"not as it should be: {trouble}")
    for event in events:
        typer.echo(f"{event['happened_at']:%Y-%m-%d %H:%M:%S} {event['who']}: {event['what']}")
    raise typer.Exit(DIFFERENT if wrong else 0)


@app.command()
def pause(context: typer.Context, plan: Plan = None) -> None:
    """Have the copying stop after its chunk."""
    with runner_of(context, plan, "migrate pause") as runner:
        runner.journal.require(runner.session, "pause")
        runner.journal.pause(runner.session, paused=True)
    typer.echo("paused; go on with `tasktrail migrate resume`")


@app.command()
def resume(context: typer.Context, plan: Plan = None) -> None:
    """Allow the copying to go on."""
    with runner_of(context, plan, "migrate resume") as runner:
        runner.journal.require(runner.session, "resume")
        runner.journal.pause(runner.session, paused=False)
        state = runner.journal.require(runner.session, "resume")
    typer.echo(f"resumed; go on with `{NEXT_COMMAND[state.phase]}`")


@contextmanager
def _bars() -> Iterator[partial[None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} rows/s"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield partial(_move_bar, progress, {})


def _move_bar(progress: Progress, bars: dict[str, TaskID], copied: Copied) -> None:
    if copied.table not in bars:
        bars[copied.table] = progress.add_task(copied.table, rate=0.0)
    progress.update(bars[copied.table], total=copied.total, completed=copied.done, rate=copied.rate)


def _lines(found: Account) -> list[dict[str, object]]:
    return [asdict(line) for line in found.lines]


def _show_account(found: Account, verb: str) -> None:
    table = Table("table", "kind", f"rows {verb}", "because", "rows")
    for line in found.lines:
        table.add_row(
            *(plain(cell) for cell in (line.table, line.kind, line.fate, line.reason or "")), str(line.rows)
        )
    console = _console()
    console.print(table)
    for name in found.tables:
        console.print(plain(found.equation(name)))


def _show_verdict(verdict: Verdict) -> None:
    console = _console()
    pending = f", {verdict.pending} left out as their change is in the queue" if verdict.pending else ""
    colour = "red" if verdict.differing else "green"
    console.print(
        f"[{colour}]{verdict.way}[/]: {verdict.compared} rows looked at{pending}, {verdict.differing} differ"
    )
    for one in verdict.differences:
        what = (
            f"{one.column}: {one.expected!r} expected, {one.found!r} found" if one.column else one.found or ""
        )
        console.print(plain(f"  {one.table} {one.key}: {one.what} {what}".rstrip()))


def _said(lag: Lag) -> str:
    return f"{lag.entries} changes are to be applied, the oldest is {lag.seconds:.1f} s old"


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False)
