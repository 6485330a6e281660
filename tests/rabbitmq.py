"""A real RabbitMQ, from Debian's package, in a folder of its own and on the loopback interface only."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from kombu import Connection

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's wrapper on the PATH changes the user and the log files; this is the script behind it."""
START_SECONDS = 120.0
STOP_SECONDS = 60.0


def require_rabbitmq() -> None:
    """Skip the test where RabbitMQ is not installed; where all services must be there, fail it."""
    if PROGRAM.exists():
        return
    missing = f"RabbitMQ is not installed (Debian's package rabbitmq-server has {PROGRAM})"
    if os.environ.get("TASKTRAIL_REQUIRE_SERVICES") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


class RabbitMQ:
    """One broker with durable queues, and the port mapper (epmd) that it needs; both end with ``close``.

    Args:
        folder: of data and logs; the content survives restarts.
        address: where it listens for clients; besides the loopback interface, one of this machine's own.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self._address = address
        self.log = folder / "server.log"
        self._ports = _free_ports(3)
        self._port_mapper: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for Celery and kombu."""
        return f"amqp://guest:guest@{self._address}:{self._ports[0]}//"

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        started = (self._port_mapper, self._server)
        return [process.pid for process in started if process is not None and process.poll() is None]

    def start(self) -> str:
        """Start the broker and wait until it serves a connection.

        Returns:
            Its URL.

        Raises:
            RuntimeError: it does not start; the message has the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if self._port_mapper is None or self._port_mapper.poll() is not None:
                # Started by RabbitMQ, it would be a daemon on all interfaces, and outlive it.
                self._port_mapper = self._launch("epmd")
                self._await(self._port_mapper, self._maps_ports)
            self._server = self._launch(str(PROGRAM))
            self._await(self._server, self._serves)
        except BaseException:
            self.close()
            raise
        return self.url

    def stop(self) -> None:
        """Shut the broker down in order; what is durable is on the disk."""
        _end(self._server, hard=False)

    def kill(self) -> None:
        """End the broker as a crash would."""
        _end(self._server, hard=True)

    def close(self) -> None:
        """End everything, at once."""
        self.kill()
        _end(self._port_mapper, hard=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _environment(self) -> dict[str, str]:
        amqp, mapper, distribution = map(str, self._ports)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))
        }
        return {
            **kept,
            "HOME": str(self.folder),  # of the Erlang cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": mapper,
            "RABBITMQ_NODENAME": f"tasktrail{amqp}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": self._address,
            "RABBITMQ_NODE_PORT": amqp,
            "RABBITMQ_DIST_PORT": distribution,
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            # Guests may come from elsewhere: whoever gave it an address of its own has closed the network.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "-rabbit loopback_users []",
            "detached": "1",  # the script becomes the broker instead of being its parent
        }

    def _launch(self, program: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [program],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _await(self, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"RabbitMQ in {self.folder} does not start:\n{end}")
            time.sleep(0.05)

    def _maps_ports(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._ports[1]), timeout=1):
            return True
        return False

    def _serves(self) -> bool:
        with suppress(OSError), Connection(self.url, connect_timeout=2) as connection:
            connection.connect()
            return True
        return False


def _end(process: subprocess.Popen[bytes] | None, *, hard: bool) -> None:
    if process is None or process.poll() is not None:
        return
    if not hard:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
    process.kill()
    process.wait(STOP_SECONDS)


def _free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
