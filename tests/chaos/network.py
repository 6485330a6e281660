"""Hosts of their own inside one machine: network namespaces behind one bridge, whose links can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

import pytest

PREFIX: Final = 24


def require_network_namespaces() -> None:
    """Skip the test where this process may not make network namespaces."""
    if shutil.which("ip") is None:
        pytest.skip("there is no program ip (Debian's package iproute2)")
    name = f"tt{os.getpid()}"
    made = _ip("netns", "add", name, check=False)
    if made.returncode != 0:
        pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
    _ip("netns", "delete", name)


class Network:
    """So many hosts and the address of this machine among them; a context manager.

    No packet leaves the machine: the bridge has no other port than theirs.

    Args:
        hosts: how many.

    Attributes:
        address: where the hosts find servers of this machine.
    """

    def __init__(self, hosts: int) -> None:
        number = os.getpid() % 250 + 1
        self._mark = f"tt{os.getpid() % 100_000}"
        self._subnet = f"10.213.{number}"
        self.address = f"{self._subnet}.1"
        self._hosts = [f"{self._mark}h{host}" for host in range(hosts)]
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        bridge = f"{self._mark}b"
        with ExitStack() as undo:
            _ip("link", "add", bridge, "type", "bridge")
            undo.callback(_ip, "link", "delete", bridge, check=False)
            _ip("address", "add", f"{self.address}/{PREFIX}", "dev", bridge)
            _ip("link", "set", bridge, "up")
            for number, host in enumerate(self._hosts):
                _ip("netns", "add", host)
                undo.callback(_ip, "netns", "delete", host, check=False)
                _ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
                # The namespace takes its time to go, and the link with it, while the name is wanted again.
                undo.callback(_ip, "link", "delete", host, check=False)
                _ip("link", "set", host, "master", bridge, "up")
                _ip("-n", host, "address", "add", f"{self._subnet}.{number + 10}/{PREFIX}", "dev", "eth0")
                for device in ("lo", "eth0"):
                    _ip("-n", host, "link", "set", device, "up")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._undo.close()

    def inside(self, host: int) -> list[str]:
        """Return what a command line begins with that runs on a host."""
        return ["ip", "netns", "exec", self._hosts[host % len(self._hosts)]]

    def cut(self, host: int) -> None:
        """Cut the link of a host: packets are lost, and nobody is told."""
        _ip("link", "set", self._hosts[host], "down")

    def heal(self, host: int) -> None:
        """Mend the link."""
        _ip("link", "set", self._hosts[host], "up")


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True, timeout=30)
