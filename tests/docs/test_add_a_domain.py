"""Adding a domain is short, and what the page makes is a domain like any other."""

from __future__ import annotations

from sqlalchemy import create_engine

from conftest import MakeDatabase
from tasktrail import schema
from tasktrail.doctor import Severity, constraints_and_indexes, untracked_tasks
from tests.docs import world
from tests.docs.pages import ROOT, blocks
from tests.docs.reader import reading

PAGE = ROOT / "docs/howto/add-a-domain.md"
CODE = [block for block in blocks(PAGE) if block.language == "python"]


def test_adding_a_domain_takes_less_than_forty_lines_of_code() -> None:
    lines = [line for block in CODE for line in block.text.splitlines() if line.strip()]

    assert len(lines) < 40


def test_the_domain_of_the_page_passes_the_checks_of_an_installation(
    make_database: MakeDatabase, redis_url: str
) -> None:
    url = make_database()
    engine = create_engine(url)
    with reading(url, redis_url) as reader:
        world.create_tables(engine, reader.trail.registry.get("report").model.metadata)
        for block in CODE:
            reader.follow(block)
        with reader.trail.engines.pooled() as db:
            problems = schema.problems(db, reader.trail.registry, schema=None)
            findings = [*constraints_and_indexes(reader.trail, db), *untracked_tasks(reader.trail, db)]

    assert "invoice" in reader.trail.registry
    assert problems == []
    assert [found for found in findings if found.severity is Severity.ERROR] == []
    engine.dispose()
