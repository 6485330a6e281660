"""Each rule about legacy rows, line by line: a row, and what its twin makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from apps.portfolio.tests.legacy.case import CREATION, RATES, UPDATES, Case
from apps.portfolio.tests.legacy.cases import CASES
from apps.portfolio.tests.legacy.judge import MODELS, judge

from portfolio.legacy.reasons import Reason
from portfolio.legacy.twins import etf_creation_twin, exchange_rate_twin
from portfolio.legacy.vocabulary import ARCHIVED_TYPES, STATUSES
from tasktrail.migration.plan import KEPT_BY_THE_ENGINE, Mapped, Refused

PAGE = Path(__file__).parents[4] / "docs/reference/legacy-mapping.md"
LINES = {
    # LEGACY.md, "Where each goes"
    "task_status, exchange rates", "task_status, ETF creation", "task_status, any other type", "etf_updates",
    "daily_update_tracking", "status map", "data found, attempted, or neither", "base EUR",
    "etf id or resource id", "error -> error_message", "retry_count -> attempts",
    # LEGACY.md, "What the row holds", but for what takes more than one row or happens under way
    "metadata missing, JSON null, a scalar, an array", "malformed or ambiguous date",
    "bad JSON, NaN, lone surrogate, \\u0000 inside",
    "currencies not a list, empty, not 3 letters, duplicated, lower case", "unknown status",
    "NULL created_at", "over-long text for the new column", "etf_id without its ETF", "id beyond INT",
    # LEGACY.md, "What really lies in them"
    "a terminal row may have no end time",
    # Ours
    "times", "unknown update type", "the first reason counts",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_legacy_row_becomes_what_its_line_says(case: Case) -> None:
    made = judge(case.source, case.row)
    if case.disposition != "migrated":
        assert made == Refused(case.disposition, case.reason or "")
        return

    assert isinstance(made, Mapped)
    assert {name: made.values[name] for name in case.values} == dict(case.values)
    assert case.inferred is None or made.inferred == case.inferred
    assert not case.is_whole or set(made.values) == set(case.values)


@pytest.mark.parametrize("case", [case for case in CASES if case.target], ids=str)
def test_a_twin_names_every_column_that_the_migration_does_not_keep(case: Case) -> None:
    made = judge(case.source, case.row)
    table = MODELS[case.target or ""].__table__
    columns = {column.name for column in table.columns if column.computed is None} - KEPT_BY_THE_ENGINE

    assert isinstance(made, Mapped)
    assert set(made.values) == columns - ({"id"} if case.target != UPDATES else set())
    assert made.inferred <= set(made.values)


def test_every_line_has_its_case() -> None:
    assert {case.line for case in CASES} == LINES


def test_every_reason_has_its_case() -> None:
    assert {case.reason for case in CASES if case.reason} == {*Reason, *ARCHIVED_TYPES.values()}


def test_every_word_of_the_status_map_has_its_case() -> None:
    tried = {case.row["status"] for case in CASES if case.source == "task_status"}

    assert set(STATUSES) <= tried


def test_the_page_and_the_code_know_the_same_reasons() -> None:
    page = PAGE.read_text(encoding="utf-8")
    tables = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    codes = set(
        re.findall(r"(?:quarantined|archived), `(\w+)`|^\| \d+ \|.*\| `(\w+)` \|$", tables, re.MULTILINE)
    )

    assert {one or other for one, other in codes} == {*Reason, *ARCHIVED_TYPES.values()}


def test_the_page_and_the_code_know_the_same_words() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("## Status")[2].partition("## Standard")[0]
    listed = {
        word: status
        for words, status in re.findall(r"^\| (`.+`) \| ([A-Z]+) \|", page, re.MULTILINE)
        for word in re.findall(r"`(\w+)`", words)
    }

    assert listed == STATUSES


def test_the_two_ways_out_of_task_status_are_its_own_twins() -> None:
    for case in CASES:
        if case.target in {RATES, CREATION}:
            twin = exchange_rate_twin if case.target == RATES else etf_creation_twin

            assert twin({"id": 1, **case.row}) == judge(case.source, case.row)
