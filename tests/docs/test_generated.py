"""Pages that list what there is are equal to it: requests, tables, dependencies, blocks that are not run.

``WRITE_PAGES=1 pytest tests/docs/test_generated.py`` writes those that are made as a whole.
"""

from __future__ import annotations

import os
import re
import tomllib

import pytest
from celery import Celery
from sqlalchemy import Engine, create_engine, text

from conftest import MakeDatabase
from tasktrail import Settings, Trail, schema
from tasktrail.models import STANDARD_COLUMNS
from tasktrail.web import create_app
from tests.docs import generated, world
from tests.docs.pages import ROOT, blocks
from tests.docs.reader import FOLDER, loaded

REFERENCE = ROOT / "docs/reference"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COLUMNS = text(
    """
    SELECT relname AS table_name, attname AS column_name, format_type(atttypid, atttypmod) AS type,
        CASE WHEN attnotnull THEN 'no' ELSE 'yes' END AS is_null
    FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped AND nspname = 'public'
    ORDER BY relname, attnum
    """
)
Column = tuple[str, str, str]


def is_written(name: str, page: str) -> bool:
    """Return whether a page is as it was made now; write it if that is asked for."""
    file = REFERENCE / name
    if os.environ.get("WRITE_PAGES"):
        file.write_text(page, encoding="utf-8")
    return file.exists() and file.read_text(encoding="utf-8") == page


def test_the_page_of_requests_is_that_of_the_application() -> None:
    trail = Trail(Celery("pages"), Settings(database_url="postgresql://nobody@nowhere/nothing"))
    document = create_app(trail).openapi()

    assert is_written("rest-api.md", generated.requests_page(document))


def test_every_request_is_in_the_summary_of_the_api() -> None:
    trail = Trail(Celery("pages"), Settings(database_url="postgresql://nobody@nowhere/nothing"))
    summary = (REFERENCE / "rest.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:GET |POST )?(/[a-z/{}]+)(?:\?[^`]*)?`", summary))
    paths = {re.sub(r"\{\w*id\}", "{id}", path) for path in create_app(trail).openapi()["paths"]}

    assert paths - named == set()


def test_the_list_of_what_is_not_run_is_complete() -> None:
    pages = sorted((ROOT / "docs").glob("*/*.md"))
    left_out = [block for page in pages for block in blocks(page) if block.not_run is not None]

    assert len(left_out) > 10
    assert is_written("not-run.md", generated.not_run_page(left_out))


@pytest.fixture(scope="module")
def tables(make_database: MakeDatabase, redis_url: str) -> dict[str, list[Column]]:
    """The columns of all tables of a database with the domains of the shop."""
    url = make_database()
    engine: Engine = create_engine(url)
    with loaded("shop", FOLDER, url, redis_url) as shop:
        world.create_tables(engine, shop.Base.metadata)
    found: dict[str, list[Column]] = {}
    with engine.connect() as db:
        for row in db.execute(COLUMNS):
            found.setdefault(row.table_name, []).append((row.column_name, row.type, row.is_null))
    engine.dispose()
    return found


def listed() -> dict[str, list[Column]]:
    """Return the columns that the page lists, by table; those of tracking tables as ``tracking``."""
    found: dict[str, list[Column]] = {}
    table = ""
    for line in (REFERENCE / "tables.md").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"##+ (.+)", line):
            table = "tracking" if heading[1] == "Tracking tables" else heading[1]
        elif row := re.fullmatch(r"\| `(\w+)` \| ([a-z].*?) \| (yes|no) \| (.+) \|", line):
            found.setdefault(table, []).append((row[1], row[2], row[3]))
    return found


def test_every_table_of_the_library_is_listed_as_it_is(tables: dict[str, list[Column]]) -> None:
    in_database = {name: columns for name, columns in tables.items() if name in schema.LIBRARY_TABLES}
    on_page = listed()
    on_page.pop("tracking")

    assert {name: sorted(columns) for name, columns in on_page.items()} == {
        name: sorted(columns) for name, columns in in_database.items()
    }


def test_the_columns_of_a_tracking_table_are_listed_as_they_are(tables: dict[str, list[Column]]) -> None:
    standard = [column for column in tables["report_tracking"] if column[0] in STANDARD_COLUMNS]

    assert listed()["tracking"] == standard


@pytest.mark.parametrize("part", ["library", *PROJECT["optional-dependencies"]])
def test_every_dependency_is_justified(part: str) -> None:
    wanted = PROJECT["dependencies"] if part == "library" else PROJECT["optional-dependencies"][part]
    content = (REFERENCE / "dependencies.md").read_text(encoding="utf-8")
    heading = rf"^## Of the (?:extra `)?{part}`?$"
    (section,) = re.findall(rf"{heading}(.*?)(?=^## )", content, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.+) \| (.+) \|$", section, re.MULTILINE)

    assert sorted(name + versions for name, versions, _, _ in rows) == sorted(wanted)
