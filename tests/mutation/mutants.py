"""A mutant: a fork of this process in which one module is another one than the file says."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, Final

import pytest
from hypothesis import Phase, settings

PLUGINS: Final = ("pytest_asyncio.plugin", "pytest_timeout")
"""Plugins that the judging tests need; with all those that are installed, a start takes seconds."""

PATIENCE: Final = 30.0
"""How long tests that take too long may take to stop their servers, in seconds."""
FAILED: Final = 1


@dataclass(frozen=True, slots=True)
class Mutant(PathFinder):
    """Stands in for one module while it is imported.

    Attributes:
        path: of the module's file.
        code: what stands in it.
    """

    path: Path
    code: str

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin != str(self.path):
            return None
        spec.loader = _Loader(name, str(self.path), self.code)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: str) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.code, self.path, "exec", dont_inherit=True)


@dataclass(slots=True)
class Trial:
    """Tests that judge a mutant, in a process of their own.

    Attributes:
        process: the id of the process, which is that of its group too.
        output: the file with what the tests print.
        deadline: when they are stopped, on the monotonic clock.
        is_interrupted: whether they were told to stop.
    """

    process: int
    output: Path
    deadline: float
    is_interrupted: bool = False

    def code(self) -> int | None:
        """Return the exit code; None while the tests still run."""
        process, status = os.waitpid(self.process, os.WNOHANG)
        if process:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > self.deadline + PATIENCE:
            os.killpg(self.process, signal.SIGKILL)
        elif time.monotonic() > self.deadline and not self.is_interrupted:
            self.interrupt()
        return None

    def interrupt(self) -> None:
        """Tell pytest to stop its servers and end."""
        self.is_interrupted = True
        os.kill(self.process, signal.SIGINT)


def judge(
    tests: tuple[str, ...],
    mutant: Mutant | None,
    output: Path,
    *,
    longest: float = math.inf,
    modules: Path | None = None,
) -> Trial:
    """Start the tests in a fork.

    Args:
        tests: files of tests.
        mutant: what they judge; None for the code as it is.
        output: where to write what they print.
        longest: how long they may take, in seconds.
        modules: where to write which modules they needed, if anywhere.
    """
    if child := os.fork():
        return Trial(child, output, time.monotonic() + longest)
    os.setpgid(0, 0)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = FAILED
    with suppress(BaseException):
        if mutant is not None:
            sys.meta_path.insert(0, mutant)
        phases = (Phase.explicit, Phase.generate)  # the first failure is enough, however large
        settings.register_profile("mutation", derandomize=True, database=None, phases=phases)
        settings.load_profile("mutation")
        options = [f"-p{name}" for name in (*PLUGINS, "no:cacheprovider")]
        code = int(pytest.main([*options, "-x", "-q", "--no-header", "--timeout=40", "--tb=line", *tests]))
        if modules is not None:
            modules.write_text("\n".join(sys.modules), encoding="utf-8")
    os._exit(code)
