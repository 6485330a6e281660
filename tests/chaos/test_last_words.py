"""Why a worker ended: whether the judge takes Celery's failings for ours, or ours for Celery's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.cluster import Worker

CELERY = "/venv/site-packages/celery/concurrency/asynpool.py"
OURS = "/src/tasktrail/celery/losses.py"
TORN = 'UnicodeDecodeError("utf-8", b\'Traceback:\\n  File "/src/tasktrail/celery/execution.py", line 1\')'


@pytest.mark.parametrize(
    ("error", "file", "is_celerys"),
    [
        pytest.param("KeyError('x')", CELERY, True, id="Celery's"),
        pytest.param("KeyError('x')", OURS, False, id="ours"),
        pytest.param(TORN, CELERY, True, id="an answer of ours that was torn in two"),
        pytest.param(TORN, OURS, False, id="one that we read"),
    ],
)
def test_whose_failing_it_was_is_told_by_the_frames(
    tmp_path: Path, error: str, file: str, is_celerys: bool
) -> None:
    log = tmp_path / "w1.log"
    log.write_text(
        f"[12:00 INFO] ready\n[12:01 CRITICAL] Unrecoverable error: {error}\n"
        "Traceback (most recent call last):\n"
        f'  File "{file}", line 7, in work\n    load()\n{error.partition("(")[0]}: no\n[12:02 INFO] {OURS}\n'
    )
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        assert Worker("w1", "mark", ended, log).last_words() == (error, is_celerys)


def test_a_worker_that_ended_without_a_word_is_not_excused(tmp_path: Path) -> None:
    log = tmp_path / "w1.log"
    log.write_text("[12:00 INFO] ready\n")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        assert Worker("w1", "mark", ended, log).last_words() == (f"exit code 0, see {log}", False)
