"""``tasktrail serve``: the REST API and the dashboard as a process of their own."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final

import typer

from tasktrail.cli.application import trail_of
from tasktrail.cli.migrate_plan import Plan, load_plan
from tasktrail.errors import ConfigurationError

GRACE: Final = 3
"""How long open requests may take after SIGTERM, in seconds; live pages would hold on to theirs."""


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8080,
    is_open: Annotated[
        bool, typer.Option("--open", help="Let everybody on this machine read without a token.")
    ] = False,
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
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    finally:
        trail.engines.dispose()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
