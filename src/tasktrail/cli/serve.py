"""``tasktrail serve``: the REST API and the dashboard as a process of their own."""

from __future__ import annotations

import ipaddress
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Final

import typer
from sqlalchemy.orm import Session

from tasktrail.access import tokens
from tasktrail.access.audit import whoever
from tasktrail.access.tokens import Role
from tasktrail.celery import Trail
from tasktrail.cli.application import trail_of
from tasktrail.cli.maintain import LogLevel
from tasktrail.cli.migrate_plan import Plan, load_plan
from tasktrail.errors import ConfigurationError
from tasktrail.migration.plan import MigrationPlan

A_DAY: Final = timedelta(days=1)
PORT: Final = 8080
GRACE: Final = 3
"""How long open requests may take after SIGTERM, in seconds; live pages would hold on to theirs."""


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = PORT,
    is_open: Annotated[
        bool, typer.Option("--open", help="Let everybody on this machine read without a token.")
    ] = False,
    loglevel: Annotated[
        LogLevel, typer.Option(help="What is logged, on stderr.", case_sensitive=False)
    ] = "INFO",
    plan: Plan = None,
) -> None:
    """Serve the REST API and the dashboard until SIGTERM or Ctrl-C.

    Every request takes a token of `tasktrail tokens create`.
    """
    try:
        import uvicorn  # noqa: PLC0415  # of an extra

        from tasktrail.web import create_app  # noqa: PLC0415  # needs the same extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed: pip install 'tasktrail[web]'") from error
    if is_open and not _is_loopback(host):
        raise ConfigurationError(f"--open: allowed on a loopback address only, and {host} is none")
    trail = trail_of(context)
    shown = load_plan(plan) if plan else None
    if is_open:
        typer.secho(
            "WARNING: --open: everybody on this machine sees every job", fg="red", bold=True, err=True
        )
    try:
        uvicorn.run(
            create_app(trail, is_open=is_open, plan=shown),
            host=host,
            port=port,
            log_level=loglevel.lower(),
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    finally:
        trail.dispose()


def serve_to_whoever_looks(
    trail: Trail, *, plan: MigrationPlan | None = None, say: Callable[[str], None] = typer.echo
) -> None:
    """Serve on this machine until SIGTERM or Ctrl-C, with a token of an operator that ends with it.

    For demonstrations: address and token are said, and nothing is to be prepared.

    Args:
        trail: what it is about.
        plan: the migration that is shown.
        say: shows a line.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
        SchemaOutdated: migrations are missing.
    """
    import uvicorn  # noqa: PLC0415  # of an extra

    from tasktrail.web import create_app  # noqa: PLC0415  # needs the same extra

    trail.check()
    name = f"demonstration {secrets.token_hex(3)}"
    with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
        token = tokens.create(db, trail.schema, name, Role.OPERATOR, lifetime=A_DAY, who=whoever())
    config = uvicorn.Config(
        create_app(trail, plan=plan), log_level="warning", timeout_graceful_shutdown=GRACE
    )
    # uvicorn passes the signal on when it has ended, which would end us before we have cleaned up.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _listener() as listener, suppress(KeyboardInterrupt):
            say(f"dashboard: http://127.0.0.1:{listener.getsockname()[1]}/")
            say(f"token:     {token}")
            say("It is of an operator, and ends with this. End it with Ctrl-C.")
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
        with trail.engines.errors(), Session(trail.engines.sync) as db, db.begin():
            tokens.revoke(db, trail.schema, name, who=whoever())


def _listener() -> socket.socket:
    """Listen where one would look first, or wherever there is room."""
    try:
        return socket.create_server(("127.0.0.1", PORT))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
