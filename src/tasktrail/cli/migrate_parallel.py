"""``tasktrail migrate parallel``, ``compare`` and ``drift``: both systems at work, and whether they agree."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasktrail.cli.durations import duration
from tasktrail.cli.migrate import DIFFERENT, AsJson, Check, Undo, check_step, runner_of
from tasktrail.cli.migrate_plan import Plan
from tasktrail.migration import drift as drifting
from tasktrail.migration import parallel as parallel_run
from tasktrail.migration.drift import Entry, Pass
from tasktrail.migration.state import Phase

AsCsv = Annotated[bool, typer.Option("--csv", help="Print it as CSV.")]

COLUMNS: Final = (
    "table", "way", "key", "what", "column", "expected", "found", "passes", "known_as", "state",
    "first_seen_at", "last_seen_at", "healed_at",
)  # fmt: skip


def parallel(
    context: typer.Context,
    plan: Plan = None,
    window: Annotated[
        str, typer.Option("--window", metavar="DURATION", help="How long it is to last at least, e.g. 7d.")
    ] = "7d",
    check: Check = False,
    undo: Undo = False,
) -> None:
    """Begin the parallel run: both systems live, legacy is the truth, and both sides are compared."""
    length = duration("--window", window)
    with runner_of(context, plan, "migrate parallel") as runner:
        if check:
            check_step(runner, "begin the parallel run", Phase.VERIFIED, Phase.PARALLEL)
        if undo:
            parallel_run.stop(runner.session, runner.workspace)
            typer.echo("the parallel run is stopped; the new tables go on following")
            return
        is_new = parallel_run.begin(runner.session, runner.workspace, length)
        state = runner.journal.require(runner.session, "begin the parallel run")
    what = "the parallel run began" if is_new else "it is running already"
    typer.echo(f"{what}; cutover is possible from {state.window_ends_at:%Y-%m-%d %H:%M:%S} UTC on")


def compare(
    context: typer.Context, plan: Plan = None, as_json: AsJson = False, as_csv: AsCsv = False
) -> None:
    """Compare both sides once, and store what was found; exit code 2 when they disagree."""
    with runner_of(context, plan, "migrate compare") as runner:
        report = parallel_run.run_pass(runner.session, runner.workspace)
        found = drifting.entries(runner.session, runner.workspace)
    stored = report.stored
    if as_json:
        seen = {"clean": stored.is_clean, "pass": asdict(stored), "warnings": report.warnings}
        typer.echo(json.dumps({**seen, "drift": [_fields(one) for one in found]}, default=str))
    elif as_csv:
        _write_csv(found)
    else:
        _show_entries(found)
        typer.echo(_said(stored))
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    raise typer.Exit(0 if stored.is_clean else DIFFERENT)


def drift(
    context: typer.Context,
    plan: Plan = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what healed, and the last comparisons.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    limit: Annotated[int, typer.Option(min=1, help="How many differences at most.")] = 1_000,
) -> None:
    """List the differences that are open; exit code 2 when the plan does not explain all of them."""
    with runner_of(context, plan, "migrate drift") as runner:
        runner.journal.require(runner.session, "list drift")
        found = drifting.entries(runner.session, runner.workspace, healed=everything, limit=limit)
        passes = drifting.passes(runner.session, runner.workspace) if everything else []
    if as_json:
        seen = {"drift": [_fields(one) for one in found], "passes": [asdict(one) for one in passes]}
        typer.echo(json.dumps(seen, default=str))
    elif as_csv:
        _write_csv(found)
    else:
        _show_entries(found)
        for one in passes:
            typer.echo(f"{one.started_at:%Y-%m-%d %H:%M:%S}: {_said(one)}")
        if not found:
            typer.echo("no drift")
    is_open = any(one.healed_at is None and one.known_as is None for one in found)
    raise typer.Exit(DIFFERENT if is_open else 0)


def _fields(entry: Entry) -> dict[str, object]:
    one = entry.difference
    values = (
        one.table, one.way, one.key, one.what, one.column, one.expected, one.found, entry.passes,
        entry.known_as, _state(entry), entry.first_seen_at, entry.last_seen_at, entry.healed_at,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _state(entry: Entry) -> str:
    if entry.healed_at is None:
        return "open" if entry.known_as is None else "known"
    return "transient" if entry.is_transient else "healed"


def _write_csv(found: Sequence[Entry]) -> None:
    writer = csv.DictWriter(sys.stdout, COLUMNS)
    writer.writeheader()
    writer.writerows(map(_fields, found))


def _show_entries(found: Sequence[Entry]) -> None:
    if not found:
        return
    names = ("row", "what", "column", "expected", "found", "passes", "state")
    table = Table(*names)
    for column in table.columns:
        column.overflow = "fold"
    for entry in found:
        one = entry.difference
        state = _state(entry) if entry.known_as is None else f"{_state(entry)}: {entry.known_as}"
        cells = (
            f"{one.table} {one.key}", f"{one.what} ({one.way})", one.column,
            _value(one.column, one.expected), _value(one.column, one.found), str(entry.passes), state,
        )  # fmt: skip
        table.add_row(*map(escape, cells))
    Console(highlight=False).print(table)


def _value(column: str, value: str | None) -> str:
    """Return a value so that NULL and an empty text look different; a whole row has none."""
    if value is None:
        return "NULL" if column else ""
    return value or "''"


def _said(one: Pass) -> str:
    left_out = f", {one.pending} left out as they are not finished" if one.pending else ""
    only_new = f", {one.only_new} only on the new side" if one.only_new else ""
    return (
        f"{one.compared} rows looked at, {one.pairs} pairs{left_out}{only_new}; "
        f"{one.mismatches} mismatches, {one.known} known, {one.healed} healed"
    )
