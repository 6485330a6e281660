"""``portfolio demo`` in an empty folder, the way somebody tries it for the first time; and a second time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import run_apart

SUMMARY = """\
61 COMPLETED, 1 FAILED of 62 tracked updates
failed: 2026-10-24, NothingPublished: no rates are published for 2026-10-24: 2026-10-24 is a Saturday
retries: 2 failed attempts of 2026-08-07 before it completed
rates stored: 610, counted by the jobs: 610
the database says so
"""
ROW = re.compile(r"^ *(\d+) +(\w{3} \d{4}-\d\d-\d\d) +(COMPLETED|FAILED) +(\d+)/10 +(\d) ", re.MULTILINE)


@pytest.mark.timeout(300)  # 20 s on an idle machine; the demo has a deadline of its own
def test_the_demo_does_what_it_says_and_a_second_run_finds_it_done(project_folder: Path) -> None:
    servers_of_its_own = {"TASKTRAIL_DATABASE_URL": None, "TASKTRAIL_BROKER_URL": None}
    environment = {**servers_of_its_own, "TASKTRAIL_HOME": str(project_folder / "home"), "COLUMNS": "200"}

    first = run_apart("portfolio", "demo", cwd=project_folder, env=environment)
    second = run_apart("portfolio", "demo", cwd=project_folder, env=environment)

    assert (first.code, first.err) == (0, "")
    assert (second.code, second.err) == (0, "")
    assert "62 new rows, 0 were there already" in first.out
    assert "0 new rows, 62 were there already" in second.out
    for outcome in (first, second):
        assert outcome.out.endswith(SUMMARY)
    rows = ROW.findall(first.out)
    assert len(rows) == 62
    assert rows == ROW.findall(second.out)
    assert ("Fri 2026-08-07", "COMPLETED", "10", "2") in [row[1:] for row in rows]
    assert [row[1:] for row in rows if row[2] == "FAILED"] == [("Sat 2026-10-24", "FAILED", "0", "1")]
    assert sorted(path.name for path in project_folder.iterdir()) == ["home"]
    assert list(project_folder.glob("home/*/run/*")) == []
