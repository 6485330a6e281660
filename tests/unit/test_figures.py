"""The figures that documentation shows are those that were measured and stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from bench.__main__ import (
    HIGHLIGHTS,
    MARKS,
    PAGE,
    PROGRAMS,
    README,
    STORED,
    highlights,
    page,
    with_highlights,
)
from bench.report import Figure, Report, markdown, shown

FOUND: Final[dict[str, Any]] = json.loads(STORED.read_text(encoding="utf-8"))


def test_the_page_is_made_from_what_was_measured() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(FOUND), "run `.venv/bin/python -m bench --page`"


def test_the_readme_shows_what_was_measured() -> None:
    readme = README.read_text(encoding="utf-8")
    assert with_highlights(readme, FOUND) == readme, "run `.venv/bin/python -m bench --page`"
    assert all(mark in readme for mark in MARKS)
    assert highlights(FOUND).count("\n") == len(HIGHLIGHTS) + 1  # each was found


def test_every_program_was_measured() -> None:
    assert list(FOUND["reports"]) == list(PROGRAMS)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = Report("Speed", "By hand.", {"cores": "2"}, [Figure("rows", 1234.5, "/s", "raw", 2469, 0.5)])
    report.write(tmp_path / "report.json")
    assert Report.of(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))) == report
    assert "| rows | 1,234 /s | raw: 2,469 /s | 0.50 |" in markdown([report])


@pytest.mark.parametrize(("met", "said"), [(True, "under 50 ms: met"), (False, "under 50 ms: NOT met")])
def test_a_target_says_whether_it_was_met(met: bool, said: str) -> None:
    assert Figure("page", 40, "ms", target="under 50 ms", met=met).cells[-1] == said


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0.00"), (0.0123, "0.01"), (0.5, "0.50"), (12.34, "12.3"), (12345.6, "12,346")]
)
def test_a_number_has_the_digits_that_mean_something(value: float, said: str) -> None:
    assert shown(value) == said
