"""Finds what still refers to a legacy table: objects of the database, and the application's source."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

OBJECTS: Final = text(
    """
    SELECT format('the foreign key %s of %s', conname, conrelid::regclass) AS what
    FROM pg_constraint
    WHERE contype = 'f' AND confrelid = to_regclass(:table) AND conrelid <> confrelid
    UNION
    SELECT format('the view %s', ev_class::regclass)
    FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
    WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
        AND refobjid = to_regclass(:table) AND ev_class <> refobjid
    UNION
    SELECT format('the function %s', pg_proc.oid::regprocedure)
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND prosrc ~ ('\\m' || :word || '\\M')
    ORDER BY what
    """
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A place in the source that names a legacy table.

    Attributes:
        path: the file.
        line: its line, from 1.
        word: what stands there.
    """

    path: Path
    line: int
    word: str


def objects_on(db: Connection, table: str) -> list[str]:
    """List foreign keys, views and functions that refer to a table.

    Args:
        db: the database.
        table: the table's name, with or without its schema. Functions are searched for the bare name.

    Returns:
        What refers to it, e.g. ``the view active_tasks``; for a table that is gone, functions only.
    """
    word = table.rpartition(".")[2]
    return list(db.scalars(OBJECTS, {"table": table, "word": re.escape(word)}))


def mentions(
    modules: Collection[str], tables: Collection[str], *, except_in: Collection[str]
) -> list[Mention]:
    """Search Python source for the names of tables, and of classes that are usually named after them.

    Args:
        modules: names of modules; all source of the packages they belong to is searched.
        tables: bare names, e.g. ``job_state``; ``JobState`` is searched, too.
        except_in: names of modules and packages that may name the tables, such as migrations.

    Returns:
        One mention for each line, by path and line; not for a line that declares ``legacy_tables``.
    """
    if not tables:
        return []
    words = [*tables, *("".join(part.title() for part in table.split("_")) for table in tables)]
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b")
    left_out = [path for name in except_in for path in _places(name)]
    found: list[Mention] = []
    for path in sorted(
        {file for name in {name.partition(".")[0] for name in modules} for file in _files(name)}
    ):
        if any(path == place or place in path.parents for place in left_out):
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(source.splitlines(), 1):
            if "legacy_tables" not in line and (match := pattern.search(line)):
                found.append(Mention(path, number, match[1]))
    return found


def _files(name: str) -> Iterator[Path]:
    for place in _places(name):
        yield from place.rglob("*.py") if place.is_dir() else [place]


def _places(name: str) -> list[Path]:
    """Return the folders of a package, or the file of a module; nothing for what has no source."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # a program's own __main__ has none, either
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place).resolve() for place in spec.submodule_search_locations]
    return [Path(spec.origin).resolve()] if spec.origin and spec.origin.endswith(".py") else []
