"""``tasktrail dev``: the embedded PostgreSQL and Redis, for development."""

from __future__ import annotations

import typer

from tasktrail import schema
from tasktrail.cli.application import trail_of
from tasktrail.embedded import EmbeddedPostgres, EmbeddedRedis, EmbeddedStack
from tasktrail.settings import Settings

app = typer.Typer(help="The embedded PostgreSQL and Redis, for development.", no_args_is_help=True)


@app.command()
def up() -> None:
    """Start what no URL is given for, and print how to reach it."""
    settings = EmbeddedStack(Settings.load()).start()
    for name in ("database_url", "broker_url"):
        url = getattr(settings, name)
        typer.echo(f"export TASKTRAIL_{name.upper()}='{url.get_secret_value()}'")


@app.command()
def down() -> None:
    """Stop the embedded servers of this folder."""
    home = Settings.load().home
    for server in (EmbeddedRedis(home / "redis"), EmbeddedPostgres(home / "postgres")):
        was_running = server.running
        server.stop()
        typer.echo(f"{server.label}: {'stopped' if was_running else 'was not running'}")


@app.command()
def status() -> None:
    """Say which embedded servers of this folder are running."""
    home = Settings.load().home
    for server in (EmbeddedPostgres(home / "postgres"), EmbeddedRedis(home / "redis")):
        typer.echo(f"{server.label}: {f'running, pid {server.pid}' if server.running else 'not running'}")


@app.command("create-tables")
def create_tables(context: typer.Context) -> None:
    """Create the tables that the application needs and the database lacks.

    For development: a deployment makes them in Alembic revisions, where they can be changed later.
    """
    trail = trail_of(context)
    try:
        with trail.engines.sync.begin() as db:
            created = schema.create_missing(db, trail.registry, schema=trail.schema)
    finally:
        trail.dispose()
    for name in created:
        typer.echo(f"created {name}")
    if not created:
        typer.echo("nothing to create: all tables are there")
