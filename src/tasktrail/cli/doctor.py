"""``tasktrail doctor``: what is wrong with an installation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console

from tasktrail.cli.application import trail_of
from tasktrail.cli.printing import plain
from tasktrail.doctor import Finding, Severity, examine

UNHEALTHY: Final = 2
"""Exit code when something is wrong."""


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what is wrong with this installation; exit code 0 when nothing is, else 2.

    Looks for untracked tasks, missing columns, CHECKs, indexes and migrations, legacy tables that are still
    there, settings that lose or double work, clock skew, and stuck rows.
    """
    trail = trail_of(context)
    try:
        findings = examine(trail)
    finally:
        trail.dispose()
    if as_json:
        typer.echo(json.dumps({"healthy": not findings, "findings": [asdict(one) for one in findings]}))
    else:
        _show(findings)
    raise typer.Exit(UNHEALTHY if findings else 0)


def _show(findings: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        colour = "red" if finding.severity is Severity.ERROR else "yellow"
        console.print(
            f"[{colour}]{finding.severity}[/] {plain(finding.check)}: "
            f"[bold]{plain(finding.subject)}[/] {plain(finding.message)}"
        )
    console.print(f"{len(findings)} findings" if findings else "[green]nothing is wrong[/]")
