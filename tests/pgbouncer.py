"""A real PgBouncer, from Debian's package, before the PostgreSQL of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from sqlalchemy.engine import URL

START_SECONDS = 30.0

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} timezone=UTC

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {pool_mode}
ignore_startup_parameters = options
default_pool_size = {pool_size}
server_round_robin = 1
max_client_conn = 200
admin_users = admin
"""
"""Clients get another server connection each time, so that nothing works by chance."""


def program() -> str:
    """Return PgBouncer's path; skip the test where it is not installed, or fail it where it must be."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if found is not None:
        return found
    missing = "PgBouncer is not installed (Debian's package pgbouncer has it)"
    if os.environ.get("TASKTRAIL_REQUIRE_SERVICES") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


class PgBouncer:
    """One pooler on the loopback interface; it ends with ``close``.

    Args:
        folder: of its configuration and log; another user must be able to read it.
        postgres: the server behind it.
        pool_mode: when a server connection may be given to another client.
        pool_size: how many server connections there are for a database, at most.
    """

    def __init__(
        self, folder: Path, postgres: URL, pool_mode: Literal["session", "transaction"], *, pool_size: int
    ) -> None:
        self._folder = folder
        self._postgres = postgres
        self._mode = pool_mode
        self._pool_size = pool_size
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "pgbouncer.log"

    def url(self, direct: str) -> str:
        """Return the URL of a database through the pooler.

        Args:
            direct: that of the database itself.
        """
        database = direct.rpartition("?")[0].rpartition("/")[2]
        return f"postgresql://somebody@127.0.0.1:{self._port}/{database}"

    def __enter__(self) -> Self:
        host = str(self._postgres.query["host"])
        self._folder.mkdir(mode=0o755, exist_ok=True)
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                host=host,
                port=self._postgres.query["port"],
                user=self._postgres.username,
                listen_port=self._port,
                pool_mode=self._mode,
                pool_size=self._pool_size,
            )
        )
        # It refuses to run as root, and the server's socket is for the user who owns its folder.
        owner = pwd.getpwuid(Path(host).stat().st_uid)
        identity: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        if os.geteuid() != 0:
            identity = {}
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [program(), str(configuration)], stdout=output, stderr=output, **identity
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"PgBouncer does not start:\n{self.log.read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
