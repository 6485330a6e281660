"""The documentation does what it says: its Python, its commands and its SQL are run, page by page.

A block is left out only by a comment right before it, ``<!-- not run: reason -->``. What a page shows right
after a block, as ``text``, must be what the block prints; ``…`` stands for anything.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from conftest import MakeDatabase
from tasktrail.cli.app import app as tasktrail
from tests.commands import run_here
from tests.docs import world
from tests.docs.pages import OUTPUT, ROOT, SHELLS, Block, blocks, is_like
from tests.docs.reader import FOLDER, Reader, loaded, reading

FOLDERS = ("howto", "explanation", "runbooks")
PAGES = sorted(chain.from_iterable((ROOT / "docs" / folder).glob("*.md") for folder in FOLDERS))
CODE = frozenset({"python", "sql", *SHELLS})

ALL = [block for page in PAGES for block in blocks(page)]
LEFT_OUT = [block for block in ALL if block.not_run is not None]


@pytest.fixture(scope="session")
def shop_template(make_database: MakeDatabase, redis_url: str) -> str:
    """Name of a database with the tables of the shop."""
    url = make_database()
    engine = create_engine(url)
    with loaded("shop", FOLDER, url, redis_url) as shop:
        world.create_tables(engine, shop.Base.metadata)
    engine.dispose()
    return engine.url.database or ""


@pytest.fixture
def shop_url(make_database: MakeDatabase, shop_template: str) -> str:
    """A fresh database with the rows that the pages speak of."""
    url = make_database(shop_template)
    engine = create_engine(url)
    world.add_rows(engine)
    engine.dispose()
    return url


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.language in CODE for block in blocks(page))],
    ids=lambda page: str(page.relative_to(ROOT / "docs")),
)
def test_every_block_of_a_page_does_what_the_page_says(page: Path, shop_url: str, redis_url: str) -> None:
    code = [block for block in blocks(page) if block.language in CODE and block.not_run is None]
    with reading(shop_url, redis_url) as reader:
        for block in code:
            reader.follow(block)

        assert reader.ran == code


@pytest.mark.parametrize("block", LEFT_OUT or [None], ids=str)
def test_a_block_that_is_not_run_says_why(block: Block | None) -> None:
    if block is not None:
        assert block.not_run
        pytest.skip(f"not run: {block.not_run}")


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_names_its_language(block: Block) -> None:
    assert re.fullmatch(r"[a-z]+", block.language)


def test_the_example_of_the_readme_makes_a_report(
    make_database: MakeDatabase, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    (tables,) = re.findall(r"^tasktrail (--app shop:trail dev create-tables)$", readme, re.MULTILINE)
    (promise,) = re.findall(r"^celery -A shop worker +# logs: (.+)$", readme, re.MULTILINE)
    (tmp_path / "shop.py").write_text(example, encoding="utf-8")

    with loaded("shop", tmp_path, make_database(), redis_url) as shop:
        assert run_here(tasktrail, *tables.split()).code == 0
        enqueued = shop.make_report.enqueue(customer_id=7)
        shop.make_report.celery_task.apply(args=(enqueued.id,))

        with shop.trail.engines.pooled() as db:
            assert db.exec_driver_sql("SELECT status FROM report_tracking").scalars().all() == ["COMPLETED"]
    assert promise in capsys.readouterr().out


# The rules above hold for any page: here they are broken one by one.


@pytest.fixture
def follow(tmp_path: Path, shop_url: str, redis_url: str) -> Callable[[str], Reader]:
    """Follows a page with this text."""

    def run(page: str) -> Reader:
        file = ROOT / "docs" / "howto" / "a page of a test.md"
        with pytest.MonkeyPatch.context() as patch, reading(shop_url, redis_url) as reader:
            patch.setattr(Path, "read_text", lambda *_, **__: page)
            for block in blocks(file):
                if block.language in CODE and block.not_run is None:
                    reader.follow(block)
        return reader

    return run


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (fenced("python", "1 / 0"), "division by zero"),
        (fenced("python", "print('a')") + fenced(OUTPUT, "b"), "printed:\na"),
        (fenced("python", "from shop import nothing"), "cannot import name 'nothing'"),
        (fenced("sh", "reboot --now"), "reboot is not run here; say why"),
        (fenced("console", "only output"), "there is no command in it"),
        (
            fenced("console", "$ tasktrail --app shop:trail cancel report 19\nreport 20: CANCELLED"),
            "printed:",
        ),
        (fenced("console", "$ tasktrail --app shop:trail cancel report 16"), "cannot cancel"),
        (fenced("sql", "SELECT id FROM report_tracking WHERE id = 1"), "finds nothing"),
        (fenced("sql", "SELECT nothing FROM report_tracking"), 'column "nothing" does not exist'),
    ],
)
def test_a_page_that_is_wrong_is_found_out(
    follow: Callable[[str], Reader], page: str, complaint: str
) -> None:
    with pytest.raises(Exception, match=re.escape(complaint)):
        follow(page)


def test_a_page_may_show_its_output_leave_out_a_block_and_let_a_worker_run(
    follow: Callable[[str], Reader],
) -> None:
    page = [
        fenced(
            "python", "from shop import make_report\nprint('report', make_report.enqueue(customer_id=7).id)"
        ),
        fenced(OUTPUT, "report …"),
        "<!-- not run: it would end this test -->",
        fenced("sh", "reboot --now"),
        "<!-- a worker -->\n",
        fenced("sql", "SELECT status FROM report_tracking WHERE customer_id = 7"),
        fenced(OUTPUT, "COMPLETED"),
        "<!-- exit code: 1 -->",
        fenced("console", "$ tasktrail --app shop:trail cancel report 16\nerror: … the row is COMPLETED, …"),
    ]

    assert len(follow("\n".join(page)).ran) == 3


def test_a_block_in_a_list_is_run_like_any_other(follow: Callable[[str], Reader]) -> None:
    indented = textwrap.indent(fenced("python", "if True:\n    print('a')") + fenced(OUTPUT, "a"), "   ")
    (ran,) = follow(f"1. Do this:\n\n{indented}").ran

    assert ran.text == "if True:\n    print('a')"


@pytest.mark.parametrize(
    ("actual", "shown", "expected"),
    [("a  b\n", "a b", True), ("a b", "a", False), ("a 12 b", "a … b", True), ("a b", "… c", False)],
)
def test_an_output_is_compared_word_by_word(actual: str, shown: str, expected: bool) -> None:
    assert is_like(actual, shown) is expected
