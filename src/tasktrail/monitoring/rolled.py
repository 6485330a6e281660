"""What the rollups of a domain tell, and of which time; the rest is read from the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import ARRAY, DateTime, Integer, Row, String, TextClause, bindparam, select, text
from sqlalchemy.dialects import postgresql

from tasktrail.library import library
from tasktrail.models import built_once
from tasktrail.monitoring.windows import Source
from tasktrail.registry import Domain
from tasktrail.rollups import WIDTHS, spans

MOMENT: Final = DateTime(timezone=True)
HISTOGRAMS: Final = ("running", "waiting", "attempts")


@dataclass(frozen=True, slots=True)
class RolledUp:
    """Of which time a domain has rollups.

    Attributes:
        since: from when on.
        until: until when.
        kept_from: rows that ended before this may be gone; ``None`` while none are.
    """

    since: datetime
    until: datetime
    kept_from: datetime | None


Spans: TypeAlias = Mapping[str, tuple[datetime, datetime]]
"""First moment and moment after the last, whole minutes, by the domain's name."""


def schema_of(domains: Sequence[Domain]) -> str | None:
    """Return where the library's own tables are; the domains are those of one application."""
    (schema,) = {domain.schema for domain in domains}
    return schema


def rolled_up(db: Source, domains: Sequence[Domain]) -> dict[str, RolledUp]:
    """Return of which time each domain has rollups; those that have none are missing."""
    state = library(schema_of(domains)).rollup_state
    query = select(state.c.domain, state.c.built_from, state.c.rolled_to, state.c.kept_from)
    found = db.execute(query.where(state.c.domain.in_([domain.name for domain in domains])))
    return {name: RolledUp(since, until, kept) for name, since, until, kept in found if since < until}


def completed(db: Source, schema: str | None, spans_of: Spans) -> dict[str, int]:
    """Return how many rows completed in a span of each domain, as the rollups tell; 0 is left out."""
    return dict(db.execute(_completed(schema), _runs(spans_of, WIDTHS)).all())


def figures(db: Source, schema: str | None, spans_of: Spans, widest: int) -> Sequence[Row[Any]]:
    """Return the figures of a span of each domain, by event: begins and rows of its parts, and sums.

    Args:
        db: what to read from.
        schema: where the library's own tables are.
        spans_of: the spans.
        widest: how wide a part may be, in seconds.
    """
    return db.execute(_figures(schema), _runs(spans_of, [width for width in WIDTHS if width <= widest])).all()


def histograms(db: Source, schema: str | None, spans_of: Spans) -> Iterator[tuple[str, str, int, int]]:
    """Yield domain, name, class and rows of each histogram of what completed or failed in the spans."""
    names = list(spans_of)
    for domain, kind, number, rows in db.execute(_histograms(schema), _runs(spans_of, WIDTHS)):
        yield names[domain], HISTOGRAMS[kind], number, rows


def _runs(spans_of: Spans, widths: Sequence[int]) -> dict[str, Any]:
    runs = [
        (name, number, *run)
        for number, (name, span) in enumerate(spans_of.items())
        for run in spans(*span, widths)
    ]
    names = ("domains", "numbers", "widths", "starts", "ends")
    return {name: [run[at] for run in runs] for at, name in enumerate(names)}


def _rollups(schema: str | None) -> str:
    """Return the rollups of some runs of parts, as SQL writes them after FROM.

    ``OFFSET 0`` has each run looked up by itself: the planner believes them to be much longer than they are.
    """
    quoted = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    name = quoted.format_table(library(schema).rollups)
    return f"""
        unnest(:domains, :numbers, :widths, :starts, :ends) AS run (domain, number, width, start, until)
        CROSS JOIN LATERAL (
            SELECT * FROM {name} AS there WHERE there.domain = run.domain AND there.width = run.width
                AND there.start >= run.start AND there.start < run.until OFFSET 0
        ) AS rollup"""


def _typed(statement: str) -> TextClause:
    return text(statement).bindparams(
        bindparam("domains", type_=ARRAY(String)),
        *(bindparam(name, type_=ARRAY(Integer)) for name in ("numbers", "widths")),
        *(bindparam(name, type_=ARRAY(MOMENT)) for name in ("starts", "ends")),
    )


@built_once
def _completed(schema: str | None) -> TextClause:
    return _typed(
        f"SELECT rollup.domain, sum(rows)::int8 FROM {_rollups(schema)} WHERE event = 'COMPLETED' GROUP BY 1"
    )


@built_once
def _figures(schema: str | None) -> TextClause:
    return _typed(f"""
        SELECT rollup.domain, event, array_agg(extract(epoch FROM rollup.start)::int8) AS starts,
            array_agg(rows) AS rows, sum(retried)::int8 AS retried, sum(attempts)::int8 AS attempts,
            sum(running_seconds) AS running_seconds, sum(waiting_seconds) AS waiting_seconds
        FROM {_rollups(schema)} GROUP BY rollup.domain, event""")


@built_once
def _histograms(schema: str | None) -> TextClause:
    # Tens of thousands of classes are added up: numbers are grouped faster than names.
    parts = " UNION ALL ".join(
        f"SELECT number, {at} AS kind, "
        f"unnest({name}_classes) AS class, unnest({name}_rows) AS rows FROM ended"
        for at, name in enumerate(HISTOGRAMS)
    )
    return _typed(f"""
        WITH ended AS MATERIALIZED (
            SELECT run.number, rollup.* FROM {_rollups(schema)} WHERE event IN ('COMPLETED', 'FAILED')
        )
        SELECT number, kind, class, sum(rows)::int8 FROM ({parts}) AS parts GROUP BY 1, 2, 3""")
