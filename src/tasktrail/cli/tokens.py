"""``tasktrail tokens``: who may use the API and the dashboard."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from tasktrail.access import tokens
from tasktrail.access.audit import whoever
from tasktrail.access.tokens import Role
from tasktrail.cli.application import trail_of
from tasktrail.cli.durations import duration
from tasktrail.cli.printing import plain

app = typer.Typer(help="Make and revoke the tokens of the API and the dashboard.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Whose it is; shown in the audit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    role: Annotated[Role, typer.Option(help="What its holder may do.")] = Role.VIEWER,
    expires_in: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long it lasts, e.g. 90d; else for ever.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, and print it; it cannot be shown again."""
    trail = trail_of(context)
    lifetime = None if expires_in is None else duration("--expires-in", expires_in)
    try:
        with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
            secret = tokens.create(db, trail.schema, name, role, lifetime=lifetime, who=whoever())
        typer.echo(json.dumps({"name": name, "role": role, "token": secret}) if as_json else secret)
    finally:
        trail.dispose()


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the tokens, without their secrets."""
    trail = trail_of(context)
    try:
        with trail.engines.pooled() as db:
            found = tokens.every(db, trail.schema)
    finally:
        trail.dispose()
    if as_json:
        typer.echo(json.dumps([asdict(token) for token in found], default=str))
        return
    table = Table("name", "role", "created", "last used", "expires", "revoked")
    for token in found:
        moments = (token.created_at, token.last_used_at, token.expires_at, token.revoked_at)
        shown = (f"{moment:%Y-%m-%d %H:%M}" if moment else "" for moment in moments)
        table.add_row(plain(token.name), token.role, *shown)
    Console(soft_wrap=True, highlight=False).print(table)


@app.command()
def revoke(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """End a token and its sessions at once."""
    trail = trail_of(context)
    try:
        with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
            tokens.revoke(db, trail.schema, name, who=whoever())
        typer.echo(json.dumps({"name": name, "revoked": True}) if as_json else f"{name}: revoked")
    finally:
        trail.dispose()
