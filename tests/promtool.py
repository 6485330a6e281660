"""Prometheus' own checks of metrics and rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """Run promtool; where it is not installed the test is skipped, or fails if all services must be there.

    Args:
        arguments: what to check.
        given: its standard input.

    Returns:
        What it said; a complaint fails the test.
    """
    program = shutil.which("promtool")
    if program is None:
        missing = "promtool is not installed (Debian's package prometheus has it)"
        if os.environ.get("TASKTRAIL_REQUIRE_SERVICES") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    run = subprocess.run([program, *arguments], input=given, capture_output=True, timeout=60, check=False)
    said = (run.stdout + run.stderr).decode()

    assert run.returncode == 0, said
    return said
