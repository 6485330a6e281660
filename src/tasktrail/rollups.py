"""What ended and what was created in a span of time, as figures of its parts, made from the rows.

One statement makes them, for those who keep them and for those who read the newest rows themselves, so that
both count alike. A row counts in the minute in which it ended, for as long as it is ended. Figures of wider
parts are the sums of narrower ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import DateTime, Integer, TextClause, bindparam, text
from sqlalchemy.dialects import postgresql

from tasktrail.guards import Model, table_of
from tasktrail.models import built_once
from tasktrail.states import ENDED, Status

MINUTE: Final = 60
QUARTER: Final = 900
SIX_HOURS: Final = 21_600
DAY: Final = 86_400

WIDTHS: Final = (MINUTE, QUARTER, SIX_HOURS, DAY)
"""How wide the parts are that figures are kept of, in seconds; each is a multiple of the one before.

The first three are the bars of the three windows that history is shown in, so that a window reads one figure
for each. Days are for what is summed over all of a window.
"""

CREATED: Final = "CREATED"
"""The event of rows that were added; the others are the states in which rows end."""

SMALLEST: Final = 0.001
"""Upper bound of the first class of durations, in seconds."""

CLASSES_PER_DOUBLING: Final = 4
"""Each class reaches 2 ** (1 / 4) times as far as the one before, so its middle is off by 9 % at most."""

MOST_ATTEMPTS: Final = 50
"""Rows with more attempts count as this many in the distribution."""

FIGURES: Final = (
    "rows",
    "retried",
    "attempts",
    "running_seconds",
    "waiting_seconds",
    "running_classes",
    "running_rows",
    "waiting_classes",
    "waiting_rows",
    "attempts_classes",
    "attempts_rows",
)


def floor(moment: datetime, seconds: int) -> datetime:
    """Return the begin of the part of that width that a moment lies in, UTC."""
    return datetime.fromtimestamp(math.floor(moment.timestamp()) // seconds * seconds, UTC)


def ceiling(moment: datetime, seconds: int) -> datetime:
    """Return the first begin of a part of that width that is not before a moment, UTC."""
    start = floor(moment, seconds)
    return start if start == moment else start + timedelta(seconds=seconds)


def spans(
    since: datetime, until: datetime, widths: Sequence[int] = WIDTHS
) -> list[tuple[int, datetime, datetime]]:
    """Cut a span of whole minutes into runs of parts, each of the widest parts that fit.

    Args:
        since: its first moment.
        until: the moment after its last.
        widths: the widths that may be used, ascending.

    Returns:
        Width, first moment, and moment after the last, of each run that is not empty.
    """
    if since >= until or not widths:
        return []
    *narrower, width = widths
    start, end = ceiling(since, width), floor(until, width)
    if start >= end:
        return spans(since, until, narrower)
    return [*spans(since, start, narrower), (width, start, end), *spans(end, until, narrower)]


def upper_bound(number: int) -> float:
    """Return how far a class of durations reaches, in seconds."""
    return SMALLEST * math.exp2(number / CLASSES_PER_DOUBLING)


def middle(number: int) -> float:
    """Return the duration that stands for a class, in seconds."""
    return 0.0 if number == 0 else SMALLEST * math.exp2((number - 0.5) / CLASSES_PER_DOUBLING)


@built_once
def figures_sql(model: Model, suffix: str = "") -> str:
    """Return the query of the figures of a domain; parameters: ``width`` (seconds), ``since``, ``until``.

    Durations are those of the last attempt of COMPLETED and FAILED rows: running from its claim to its end,
    waiting from its due time to its claim. They are added up as numeric, so that their order makes no
    difference. A row was retried when it took more than one attempt.

    Args:
        model: the domain's model.
        suffix: follows the names of ``since`` and ``until``, where several of these become one statement.
    """
    table = postgresql.dialect().identifier_preparer.format_table(table_of(model))  # type: ignore[no-untyped-call]
    ended = ", ".join(f"'{state}'" for state in sorted(ENDED))
    bin_of = "date_bin(make_interval(secs => :width), {}, 'epoch'::timestamptz)"
    ran = f"WHEN status <> '{Status.CANCELLED}' AND started_at IS NOT NULL"
    due = "coalesce(next_attempt_at, created_at)"
    doublings = f"ln(greatest({{}}::float8, {SMALLEST}) / {SMALLEST}) / ln(2::float8)"
    size = f"ceil({doublings} * {CLASSES_PER_DOUBLING})::int"
    retried = f"attempts > CASE event WHEN '{Status.COMPLETED}' THEN 0 ELSE 1 END"
    return f"""
        WITH endings AS (
            SELECT {bin_of.format("completed_at")} AS start, status::text AS event, attempts,
                CASE {ran} THEN greatest(extract(epoch FROM completed_at - started_at), 0) END AS running,
                CASE {ran} THEN greatest(extract(epoch FROM started_at - {due}), 0) END AS waiting
            FROM {table}
            WHERE completed_at >= :since{suffix} AND completed_at < :until{suffix} AND status IN ({ended})
            UNION ALL
            SELECT {bin_of.format("created_at")}, '{CREATED}', NULL, NULL, NULL
            FROM {table} WHERE created_at >= :since{suffix} AND created_at < :until{suffix}
        ), classed AS (
            SELECT start, event, attempts,
                running, CASE WHEN running IS NOT NULL THEN {size.format("running")} END AS running_class,
                waiting, CASE WHEN waiting IS NOT NULL THEN {size.format("waiting")} END AS waiting_class,
                CASE WHEN attempts IS NOT NULL THEN least(attempts, {MOST_ATTEMPTS}) END AS attempts_class
            FROM endings
        ), counted AS (
            SELECT start, event, running_class, waiting_class, attempts_class,
                grouping(running_class, waiting_class, attempts_class) AS level,
                count(*) AS rows, count(*) FILTER (WHERE {retried}) AS retried,
                sum(attempts) AS attempts, sum(running) AS running, sum(waiting) AS waiting
            FROM classed
            GROUP BY GROUPING SETS ((start, event), (start, event, running_class),
                (start, event, waiting_class), (start, event, attempts_class))
        )
        SELECT start, event,
            (max(rows) FILTER (WHERE level = 7))::int8 AS rows,
            (max(retried) FILTER (WHERE level = 7))::int8 AS retried,
            coalesce(max(attempts) FILTER (WHERE level = 7), 0)::int8 AS attempts,
            coalesce(max(running) FILTER (WHERE level = 7), 0)::float8 AS running_seconds,
            coalesce(max(waiting) FILTER (WHERE level = 7), 0)::float8 AS waiting_seconds,
            {_histogram("running", 3)},
            {_histogram("waiting", 5)},
            {_histogram("attempts", 6)}
        FROM counted GROUP BY start, event
    """


def _histogram(name: str, level: int) -> str:
    kept = f"FILTER (WHERE level = {level} AND {name}_class IS NOT NULL)"
    return (
        f"coalesce(array_agg({name}_class ORDER BY {name}_class) {kept}, '{{}}')::int4[] AS {name}_classes, "
        f"coalesce(array_agg(rows ORDER BY {name}_class) {kept}, '{{}}')::int8[] AS {name}_rows"
    )


def wider_figures_sql(table: str) -> str:
    """Return the query of the figures of wider parts, made from those of narrower ones.

    Parameters: ``domain``, ``narrow`` and ``width`` in seconds, ``since`` and ``until``.

    Args:
        table: the table of the rollups, as SQL writes it.
    """
    names = ("running", "waiting", "attempts")
    histograms = "".join(
        f""", {name} AS (
            SELECT wide, event,
                array_agg(class ORDER BY class) AS classes, array_agg(rows ORDER BY class) AS rows
            FROM (
                SELECT wide, event, class, sum(number)::int8 AS rows
                FROM parts, unnest({name}_classes, {name}_rows) AS histogram (class, number)
                GROUP BY wide, event, class
            ) AS summed GROUP BY wide, event
        )"""
        for name in names
    )
    columns = ", ".join(
        f"coalesce({name}.classes, '{{}}')::int4[] AS {name}_classes, "
        f"coalesce({name}.rows, '{{}}')::int8[] AS {name}_rows"
        for name in names
    )
    joins = " ".join(f"LEFT JOIN {name} USING (wide, event)" for name in names)
    return f"""
        WITH parts AS MATERIALIZED (
            SELECT date_bin(make_interval(secs => :width), start, 'epoch'::timestamptz) AS wide, *
            FROM {table}
            WHERE domain = :domain AND width = :narrow AND start >= :since AND start < :until
        ), sums AS (
            SELECT wide, event, sum(rows)::int8 AS rows, sum(retried)::int8 AS retried,
                sum(attempts)::int8 AS attempts,
                sum(running_seconds::numeric)::float8 AS running_seconds,
                sum(waiting_seconds::numeric)::float8 AS waiting_seconds
            FROM parts GROUP BY wide, event
        ){histograms}
        SELECT wide AS start, event, sums.rows AS rows, retried, sums.attempts AS attempts,
            running_seconds, waiting_seconds, {columns}
        FROM sums {joins}
    """


@built_once
def figures(models: tuple[Model, ...]) -> TextClause:
    """Read the figures of domains from their rows, with the number of the model as ``at``.

    The parameters are those of ``figures_sql``, for each model with its number after ``since`` and ``until``.
    """
    parts = (
        f"SELECT {at} AS at, part_{at}.* FROM ({figures_sql(model, str(at))}) AS part_{at}"
        for at, model in enumerate(models)
    )
    return typed(text(" UNION ALL ".join(parts)), *map(str, range(len(models))))


def typed(statement: TextClause, *suffixes: str) -> TextClause:
    """Give the parameters of figures their types."""
    return statement.bindparams(
        bindparam("width", type_=Integer()),
        *(
            bindparam(name + suffix, type_=DateTime(timezone=True))
            for name in ("since", "until")
            for suffix in suffixes or ("",)
        ),
    )
