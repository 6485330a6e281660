"""The reference pages list what there is: every setting with its default, every error, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.main import get_command

from tasktrail import Settings, errors
from tasktrail.cli.app import app
from tasktrail.maintenance import LEADER_LOCK
from tasktrail.settings import ENVIRONMENT_PREFIX
from tests.docs.pages import ROOT, blocks

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
ERRORS = {
    name: error
    for name, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.TasktrailError)
}
ELSEWHERE = {"TASKTRAIL_APP", "TASKTRAIL_PLAN"}
"""Variables that are read by something else than the settings."""


def read(path: str) -> str:
    return (ROOT / "docs" / path).read_text(encoding="utf-8")


def rows(page: str) -> list[list[str]]:
    """Return the cells of all tables whose first cell is code."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def shown(default: object) -> str:
    """Return a default as the page writes it."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"`{default}`" if isinstance(default, Path) else f"{default:g}"


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {name: default for name, default, _, _ in rows(read("reference/settings.md"))}
    expected = {
        f"`{ENVIRONMENT_PREFIX}{name.upper()}`": shown(field.default)
        for name, field in Settings.model_fields.items()
    }

    assert listed == expected


def test_every_error_is_listed_once() -> None:
    listed = [row[0] for row in rows(read("reference/errors.md"))]

    assert sorted(listed) == sorted(f"`{name}`" for name in ERRORS)


def test_the_tree_of_errors_is_that_of_the_classes() -> None:
    page = ROOT / "docs/reference/errors.md"
    (tree,) = [block.text for block in blocks(page) if block.text.startswith("TasktrailError")]
    found: dict[str, str] = {}
    path: list[str] = []
    for line in tree.splitlines():
        name = re.sub(r"\W", "", line)
        depth = line.index(name) // 4
        path[depth:] = [name]
        found[name] = path[depth - 1] if depth else "Exception"

    assert found == {name: error.__base__.__name__ for name, error in ERRORS.items()}


def test_what_an_error_knows_is_what_it_has() -> None:
    for name, _, knows in [row for row in rows(read("reference/errors.md")) if len(row) == 3]:
        error = ERRORS[name.strip("`")]
        own = set(inspect.signature(error.__init__).parameters) - {"self", "message"}
        inherited = {"domain", "tracking_id"} if issubclass(error, errors.TrackingError) else set()
        if error is errors.TrackingError:
            inherited = set()

        assert set(re.findall(r"`(\w+)`", knows)) - set(ERRORS) == own - inherited, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_speaks_only_of_variables_and_commands_that_exist(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields} | ELSEWHERE
    commands = set(getattr(get_command(app), "commands", {}))

    assert set(re.findall(r"TASKTRAIL_[A-Z_]+", content)) - known <= {"TASKTRAIL_TEST_RABBITMQ_URL"}
    assert set(re.findall(r"`tasktrail (?:--app \S+ )?([a-z]+)", content)) <= commands


@pytest.mark.parametrize("name", ["howto/run-maintenance.md", "runbooks/stuck-in-processing.md"])
def test_the_query_of_a_page_finds_the_leader(engine: Engine, name: str) -> None:
    (query,) = [block.text for block in blocks(ROOT / "docs" / name) if "pg_locks" in block.text]
    with engine.connect() as leader, engine.connect() as db:
        leader.execute(text("SELECT pg_advisory_lock(:key, 7)"), {"key": LEADER_LOCK})
        leader.execute(text("SELECT pg_advisory_lock(1)"))  # somebody else's business
        pid = leader.scalar(text("SELECT pg_backend_pid()"))

        assert [row.pid for row in db.execute(text(query.replace("::", "\\:\\:")))] == [pid]
