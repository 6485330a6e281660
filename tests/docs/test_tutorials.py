"""The tutorials work when they are followed by copy and paste, in an empty folder, with the built wheel.

Each block for the shell is run as it stands, one after the other; what is to be saved as a file is saved.
Where a page shows what a command prints, the command is given again until it prints it: a reader waits, too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, expect

from tests.docs.pages import ROOT, SHELLS, Block, blocks, is_like
from tests.waiting import until

FIRST: Final = ROOT / "docs/tutorials/track-your-first-task.md"
ADOPT: Final = ROOT / "docs/tutorials/adopt-in-an-application.md"
MIGRATE: Final = ROOT / "docs/tutorials/migrate-a-status-table.md"
INVOICES: Final = ROOT / "examples/invoices"
PATIENCE: Final = 60.0
PASSED_ON: Final = ("LANG", "SSL_CERT_FILE", "PIP_INDEX_URL", "PIP_CERT", "PIP_CACHE_DIR")
SAVED_AS: Final = re.compile(r"[Ss]ave this as `([\w./-]+)`")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [shutil.which("uv") or str(ROOT / ".tools/bin/uv"), "build", "--wheel", "--quiet"]
    subprocess.run([*build, "--out-dir", str(folder), str(ROOT)], check=True, timeout=120)
    (built,) = folder.glob("tasktrail-*.whl")
    return built


class Beginner:
    """Somebody with an empty folder and a shell.

    Args:
        folder: where the empty folder is made.
        wheel: what ``pip install tasktrail`` installs.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir()
        self._remembered = folder / "environment"
        constraint = folder / "constraint.txt"
        constraint.write_text(f"tasktrail=={version('tasktrail')}\n", encoding="utf-8")
        here = str(Path(sys.executable).parent)
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != here)
        self._environment = {
            "PATH": path,
            "HOME": str(folder),
            "PIP_CONSTRAINT": str(constraint),
            "PIP_FIND_LINKS": str(wheel.parent),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "NO_COLOR": "1",
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        }

    def save(self, name: str, text: str) -> None:
        """Save a file."""
        (self.folder / name).write_text(f"{text}\n", encoding="utf-8")

    def type(self, commands: str) -> str:
        """Type commands into the shell, and return what they print."""
        script = f'{self._recall}set -e\n{commands}\nset +e\nexport -p > "{self._remembered}"'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    @property
    def _recall(self) -> str:
        return f'. "{self._remembered}"\n' if self._remembered.exists() else ""

    def follow(self, block: Block) -> None:
        """Do what a block for the shell says, until it prints what the page shows."""
        deadline = time.monotonic() + PATIENCE
        while True:
            printed = self.type(block.text)
            if not block.shown or is_like(printed, block.shown):
                return
            assert time.monotonic() < deadline, f"{block} still prints:\n{printed}"

    def clean_up(self) -> None:
        """End what a page that was not followed to its end has started."""
        for file in self.folder.glob("*.pid"):
            subprocess.run(["kill", file.read_text().strip()], check=False)
        if (self.folder / ".venv/bin/tasktrail").exists():
            subprocess.run([".venv/bin/tasktrail", "dev", "down"], cwd=self.folder, check=False)


@pytest.fixture
def beginner(tmp_path: Path, wheel: Path) -> Iterator[Beginner]:
    """Somebody with an empty folder."""
    somebody = Beginner(tmp_path, wheel)
    yield somebody
    somebody.clean_up()


@pytest.mark.timeout(600)
def test_the_first_tutorial_works_by_copy_and_paste_and_ends_on_the_dashboard(
    beginner: Beginner, chromium: Browser
) -> None:
    *work, clean_up = blocks(FIRST)
    follow(FIRST, work, beginner)
    served = beginner.folder / "serve.log"
    until(lambda: "startup complete" in served.read_text(), seconds=60)
    page = chromium.new_page()
    page.goto("http://127.0.0.1:8099")
    page.get_by_label("Token").fill((beginner.folder / "token").read_text().strip())
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("link", name="report", exact=True).click()
    page.get_by_role("link", name="2", exact=True).click()
    expect(page.get_by_role("heading", name="report 2")).to_be_visible()
    expect(page.get_by_text("attempt 2: error")).to_be_visible()
    page.close()
    beginner.follow(clean_up)


@pytest.mark.timeout(600)
def test_an_application_adopts_tasktrail_by_copy_and_paste(beginner: Beginner) -> None:
    for file in (INVOICES / "before").glob("*.py"):
        shutil.copy(file, beginner.folder)
    follow(ADOPT, blocks(ADOPT), beginner)

    for file in (INVOICES / "after").glob("*.py"):
        assert (beginner.folder / file.name).read_text() == file.read_text()


@pytest.mark.timeout(600)
def test_a_status_table_is_migrated_by_copy_and_paste(beginner: Beginner) -> None:
    follow(MIGRATE, blocks(MIGRATE), beginner)


def test_to_adopt_tasktrail_takes_fewer_than_thirty_changed_lines() -> None:
    (diff,) = (block.text for block in blocks(ADOPT) if block.language == "diff")

    assert len(re.findall(r"^[+-](?![+-]{2} ).*\S", diff, re.MULTILINE)) < 30


def test_every_tutorial_is_followed() -> None:
    assert sorted((ROOT / "docs/tutorials").glob("*.md")) == sorted([FIRST, ADOPT, MIGRATE])


def follow(page: Path, work: list[Block], beginner: Beginner) -> None:
    """Do what the blocks of a page say, one after the other."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in work:
        if block.not_run is not None:
            continue
        if block.language in SHELLS:
            beginner.follow(block)
        elif name := _saved_as(lines, block):
            beginner.save(name, block.text)


def _saved_as(lines: list[str], block: Block) -> str | None:
    """Return the name under which a block is to be saved, if the paragraph before it says so."""
    named = SAVED_AS.search(" ".join(lines[max(0, block.line - 4) : block.line - 1]))
    return named[1] if named else None
