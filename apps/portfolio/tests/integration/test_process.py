"""A process run in the foreground: its exit code is ours, and what is meant for us reaches it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from portfolio.process import run_in_foreground

TELL_THE_PARENT = "import os, signal; os.kill(os.getppid(), signal.{}); signal.pause()"
END_IN_PEACE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
COUNT_AND_GO_ON = """
import os, signal, sys
for _ in range(3):
    os.kill(os.getppid(), signal.SIGINT)
sys.exit(5)
"""


def outcome(code: str) -> int:
    return run_in_foreground([sys.executable, "-c", code], os.environ)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", 0),
        ("import sys; sys.exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
        (TELL_THE_PARENT.format("SIGTERM"), 128 + 15),
        (END_IN_PEACE + TELL_THE_PARENT.format("SIGTERM"), 7),
        (COUNT_AND_GO_ON, 5),
    ],
)
def test_we_end_with_the_process_and_as_it_did(code: str, expected: int) -> None:
    before = signal.getsignal(signal.SIGTERM)

    assert outcome(code) == expected
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_program_that_is_not_there_leaves_the_signals_as_they_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError):
        run_in_foreground([str(tmp_path / "nothing")], os.environ)

    assert signal.getsignal(signal.SIGTERM) is before


def test_the_process_has_the_environment_it_is_given() -> None:
    code = "import os, sys; sys.exit(int(os.environ['ANSWER']))"

    assert run_in_foreground([sys.executable, "-c", code], {**os.environ, "ANSWER": "42"}) == 42
