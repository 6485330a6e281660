"""Running commands, here or as processes of their own, and what their complaints must look like."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from tasktrail.cli import run


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str

    def complains(self, *words: str) -> bool:
        """Assert that it failed with exactly one clear line on stderr, which has all of the words."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (1, 1), self
        assert lines[0].startswith("error: "), self
        assert "Traceback" not in self.out + self.err, self
        assert [word for word in words if word not in lines[0]] == [], self
        return True


def run_here(app: typer.Typer, *words: str) -> Outcome:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run(app, words)
    return Outcome(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def program(name: str) -> str:
    """Return the path of a program of this environment."""
    return str(Path(sys.executable).with_name(name))


def run_apart(*words: str, cwd: Path, env: Mapping[str, str | None], patience: float = 120) -> Outcome:
    """Run a program of this environment as a process of its own.

    Args:
        words: the command line; the program is looked for beside Python.
        cwd: where it runs.
        env: what is different in its environment; ``None`` takes a variable away.
        patience: how long it may take, in seconds.
    """
    given = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
    ended = subprocess.run(
        [program(words[0]), *words[1:]],
        cwd=cwd,
        env=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience,
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)
