"""A process run in the foreground: its exit code is ours, and what is meant for us reaches it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from portfolio.process import run_in_foreground

ASK_THE_PARENT = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
ASK_THE_PARENT_AND_END_IN_PEACE = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getppid(), signal.SIGTERM)
sys.exit(7 if signal.sigwait([signal.SIGTERM]) == signal.SIGTERM else 1)
"""
INTERRUPT_THE_PARENT = """
import os, signal, sys
for _ in range(20):
    os.kill(os.getppid(), signal.SIGINT)
sys.exit(5)
"""
SAY_WHAT_IS_IGNORED = """
import signal, sys
sys.exit(sum(signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)))
"""


def outcome(code: str) -> int:
    return run_in_foreground([sys.executable, "-c", code], os.environ)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", 0),
        ("import sys; sys.exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
        (ASK_THE_PARENT, 128 + 15),
        (ASK_THE_PARENT_AND_END_IN_PEACE, 7),
        (INTERRUPT_THE_PARENT, 5),
        (SAY_WHAT_IS_IGNORED, 0),
    ],
)
def test_we_end_with_the_process_and_as_it_did(code: str, expected: int) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    assert outcome(code) == expected
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_program_that_is_not_there_leaves_the_signals_as_they_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError):
        run_in_foreground([str(tmp_path / "nothing")], os.environ)

    assert signal.getsignal(signal.SIGTERM) is before


def test_the_process_has_the_environment_it_is_given() -> None:
    code = "import os, sys; sys.exit(int(os.environ['ANSWER']))"

    assert run_in_foreground([sys.executable, "-c", code], {**os.environ, "ANSWER": "42"}) == 42
