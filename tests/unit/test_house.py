"""The papers of the house say what is true: README, Makefile, documentation."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]
)
RUN = frozenset({"howto", "explanation", "runbooks", "tutorials"})
"""Folders whose pages are run, block by block, by ``tests/docs``."""
RECORDS = sorted(path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md"))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def python_blocks() -> Iterator[object]:
    for page in PAGES:
        if page.parent.name in RUN:
            continue
        for number, block in enumerate(blocks(page.read_text(encoding="utf-8"), "python"), start=1):
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}, block {number}")


def imported_names(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield from ((node.module, alias.name) for alias in node.names)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_names_both_commands(command: str) -> None:
    commands = "\n".join(blocks(read("README.md"), "sh"))

    assert re.search(rf"^{command}\b", commands, re.MULTILINE)


@pytest.mark.parametrize("block", list(python_blocks()))
def test_every_python_block_parses_and_imports_what_exists(block: str) -> None:
    for module, name in imported_names(ast.parse(block)):
        imported = importlib.import_module(module)

        assert name is None or hasattr(imported, name)


def test_the_example_of_the_readme_is_a_module_that_works(tmp_path: Path) -> None:
    (example,) = blocks(read("README.md"), "python")
    (tmp_path / "shop.py").write_text(example, encoding="utf-8")
    settings = {"TASKTRAIL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}  # nothing connects
    code = "import shop; print(shop.make_report.name, shop.make_report.domain.policy.max_attempts)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (found.stdout, found.stderr) == ("shop.make_report 5\n", "")


def test_the_example_of_the_readme_has_twenty_lines() -> None:
    (example,) = blocks(read("README.md"), "python")

    assert len([line for line in example.splitlines() if line]) <= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_of_the_house_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for link in links:
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page

        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), link


def test_decision_records_are_numbered_without_a_gap() -> None:
    assert [int(name[:4]) for name in RECORDS] == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("name", RECORDS)
def test_every_decision_record_is_in_the_index_under_its_title(name: str) -> None:
    title = read(f"docs/adr/{name}").splitlines()[0]
    number, _, heading = title.removeprefix("# ").partition(". ")

    assert int(number) == int(name[:4])
    assert f"| {number} | [{heading}]({name}) |" in read("docs/adr/README.md").splitlines()


@pytest.mark.parametrize("name", RECORDS)
def test_every_decision_record_gives_context_decision_and_consequences(name: str) -> None:
    headings = re.findall(r"^## (.+)$", read(f"docs/adr/{name}"), re.MULTILINE)

    assert headings == ["Context", "Decision", "Consequences"]


def test_every_page_of_the_documentation_is_in_its_index() -> None:
    index = read("docs/README.md")
    listed = [
        page.relative_to(ROOT / "docs") for page in ROOT.glob("docs/*/*.md") if page.parent.name != "adr"
    ]

    assert [str(page) for page in listed if f"]({page})" not in index] == []
    assert "](adr/README.md)" in index


def test_make_help_is_the_default_and_lists_every_target() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", read("Makefile"), re.MULTILINE)
    helped = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    described = dict(line.split(maxsplit=1) for line in helped.splitlines())

    assert targets
    assert list(described) == targets


def test_ci_is_executable_and_starts_with_strict_mode() -> None:
    script = ROOT / ".ci/run"

    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


def test_what_is_left_out_of_coverage_says_why() -> None:
    marked = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in ROOT.glob("src/tasktrail/**/*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"pragma: no (cover|branch)\b(?!  # \w)", line)
    ]

    assert marked == []
