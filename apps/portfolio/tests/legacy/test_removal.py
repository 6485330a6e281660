"""After the migration the old system's package is deleted; until then nothing else may know of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PORTFOLIO = ROOT / "apps" / "portfolio"
WORDS = re.compile(r"\b(TaskStatus|task_status)\b")
MAY_KNOW = (
    PORTFOLIO / "src" / "portfolio" / "legacy",
    PORTFOLIO / "src" / "portfolio" / "alembic",
    PORTFOLIO / "tests" / "legacy",
)


def sources() -> list[Path]:
    folders = (ROOT / "src", PORTFOLIO / "src", ROOT / "examples")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def test_no_other_source_file_names_the_old_status_table() -> None:
    others = [path for path in sources() if not any(path.is_relative_to(one) for one in MAY_KNOW)]
    naming = {path.relative_to(ROOT): WORDS.findall(path.read_text(encoding="utf-8")) for path in others}

    assert len(others) > 100
    assert {path: words for path, words in naming.items() if words} == {}


def test_the_words_are_looked_for_as_words() -> None:
    assert WORDS.findall("FROM task_status, TaskStatus.id") == ["task_status", "TaskStatus"]
    assert WORDS.findall("update_task_status(), BaseTaskStatus") == []


@pytest.fixture(scope="module")
def without_legacy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is after ``portfolio/legacy`` and its tests were deleted."""
    root = tmp_path_factory.mktemp("repository")
    left_out = shutil.ignore_patterns("__pycache__", "legacy", ".hypothesis")
    for name in ("src", "apps", "tests", "examples", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=left_out)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    return root


def run(root: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command that finds the copy instead of what is installed."""
    paths = [root, root / "src", root / "apps" / "portfolio" / "src"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **more}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_every_module_still_imports_without_it(without_legacy: Path) -> None:
    code = (
        "import pkgutil, portfolio, importlib\n"
        "names = [m.name for m in pkgutil.walk_packages(portfolio.__path__, 'portfolio.')]\n"
        "skip = ('portfolio.alembic', 'portfolio.demo_worker', 'portfolio.worker')\n"
        "for name in names:\n"
        "    if not name.startswith(skip): importlib.import_module(name)\n"
        "print(portfolio.__path__[0], len(names), [n for n in names if 'legacy' in n])\n"
    )
    done = run(without_legacy, "-c", code)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(without_legacy))
    assert done.stdout.endswith("[]\n")


def test_its_commands_are_gone_and_the_others_work(without_legacy: Path) -> None:
    program = "from portfolio.cli import app; app()"
    listed = run(without_legacy, "-c", program, "--help")

    assert listed.returncode == 0, listed.stderr
    assert "legacy" not in listed.stdout
    assert "demo" in listed.stdout


def test_the_application_passes_its_tests_without_it(without_legacy: Path) -> None:
    done = run(
        without_legacy,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "apps/portfolio/tests/unit"),
    )

    assert done.returncode == 0, done.stdout[-5000:]


def test_the_application_runs_without_it(without_legacy: Path, tmp_path: Path) -> None:
    servers_of_its_own = {"TASKTRAIL_DATABASE_URL": "", "TASKTRAIL_BROKER_URL": ""}
    environment = {**servers_of_its_own, "TASKTRAIL_HOME": str(tmp_path / "home")}
    done = run(without_legacy, "-c", "from portfolio.cli import app; app()", "demo", **environment)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("prices of 2022-01-03: 5\nthe database says so\n")
