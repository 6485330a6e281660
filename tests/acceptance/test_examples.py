"""The examples do what they say, with the public API only, on servers that they bring."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tasktrail
from tests.commands import run_apart

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCES = sorted(EXAMPLES.glob("**/*.py"))
FOR_SETTING_UP = {"tasktrail.embedded", "tasktrail.schema", "tasktrail.web"}
"""The modules for composition roots and revisions (CONTRIBUTING)."""


def imports(source: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(EXAMPLES)))
def test_an_example_uses_public_names_only(source: Path) -> None:
    of_ours = [(module, name) for module, name in imports(source) if module.partition(".")[0] == "tasktrail"]
    private = [
        (module, name)
        for module, name in of_ours
        if module not in FOR_SETTING_UP and not (module == "tasktrail" and name in tasktrail.__all__)
    ]

    assert private == []


@pytest.mark.timeout(300)  # about 8 s for each run on an idle machine
def test_thumbnails_are_made_once(project_folder: Path) -> None:
    servers_of_its_own = {"TASKTRAIL_DATABASE_URL": None, "TASKTRAIL_BROKER_URL": None}
    words = ("python", str(EXAMPLES / "thumbnails/run.py"), "pictures")
    first = run_apart(*words, cwd=project_folder, env=servers_of_its_own)
    files = {path.name: path.read_bytes() for path in (project_folder / "pictures").glob("*-*.ppm")}
    second = run_apart(*words, cwd=project_folder, env=servers_of_its_own)

    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    made = [
        f"picture{number}.ppm, {came_of_it} bytes"
        for number in range(5)
        for came_of_it in ("32 wide: COMPLETED, 21 high, 2029", "8 wide: COMPLETED, 5 high, 131")
    ]
    refused = [
        f"letter.ppm, {width} wide: FAILED, NotAPicture: this is no portable pixmap (P6, 255 shades)"
        for width in (32, 8)
    ]
    assert first.out.splitlines() == ["12 new rows, 0 were there already", *made, *refused]
    assert second.out.splitlines() == ["0 new rows, 12 were there already", *made, *refused]
    assert len(files) == 10
    assert files["picture0-8.ppm"].startswith(b"P6\n8 5\n255\n")
    assert not list(project_folder.glob("pictures/*.part"))


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that knows about pictures."""
    spec = importlib.util.spec_from_file_location("picture", EXAMPLES / "thumbnails/picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "picture", module)
    spec.loader.exec_module(module)
    return module


def test_a_thumbnail_has_the_mean_colours_of_its_picture(picture: ModuleType) -> None:
    checks = picture.Picture(4, 2, bytes([0, 0, 90, 100, 200, 90] * 2) + bytes([0, 0, 90, 100, 200, 90] * 2))
    thumbnail = checks.thumbnail(2)

    assert (thumbnail.width, thumbnail.height) == (2, 1)
    assert thumbnail.pixels == bytes([50, 100, 90, 50, 100, 90])
    assert picture.Picture.read(thumbnail.written()) == thumbnail
    assert checks.thumbnail(9) is checks


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"P6 2 2 255\n123", b"P6 0 0 255\n", b"P5 1 1 255\n1", b"P6 1 1 65535\n123456"],
)
def test_what_is_no_picture_is_refused(picture: ModuleType, content: bytes) -> None:
    with pytest.raises(picture.NotAPicture):
        picture.Picture.read(content)
