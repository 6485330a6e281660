"""What ended and what was created in a span of time, as figures per minute or hour, made from the rows.

One statement makes them, for those who keep them and for those who read the newest rows themselves, so that
both count alike. A row counts in the minute in which it ended, for as long as it is ended.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import DateTime, Double, TextClause, bindparam, text
from sqlalchemy.dialects import postgresql

from tasktrail.guards import Model, table_of
from tasktrail.models import built_once
from tasktrail.states import ENDED, Status

MINUTE: Final = 60
HOUR: Final = 3600

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
    """Return the begin of the minute or hour that a moment lies in, UTC."""
    return datetime.fromtimestamp(int(moment.timestamp()) // seconds * seconds, UTC)


def upper_bound(number: int) -> float:
    """Return how far a class of durations reaches, in seconds."""
    return SMALLEST * math.exp2(number / CLASSES_PER_DOUBLING)


def middle(number: int) -> float:
    """Return the duration that stands for a class, in seconds."""
    return 0.0 if number == 0 else SMALLEST * math.exp2((number - 0.5) / CLASSES_PER_DOUBLING)


@built_once
def figures_sql(model: Model) -> str:
    """Return the query of the figures of a domain; parameters: ``width`` (seconds), ``since``, ``until``.

    Durations are those of the last attempt of COMPLETED and FAILED rows: running from its claim to its end,
    waiting from its due time to its claim. They are added up as numeric, so that their order makes no
    difference. A row was retried when it took more than one attempt.
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
            WHERE completed_at >= :since AND completed_at < :until AND status IN ({ended})
            UNION ALL
            SELECT {bin_of.format("created_at")}, '{CREATED}', NULL, NULL, NULL
            FROM {table} WHERE created_at >= :since AND created_at < :until
        ), classed AS (
            SELECT start, event, attempts,
                running, CASE WHEN running IS NOT NULL THEN {size.format("running")} END AS running_class,
                waiting, CASE WHEN waiting IS NOT NULL THEN {size.format("waiting")} END AS waiting_class,
                least(attempts, {MOST_ATTEMPTS}) AS attempts_class
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


@built_once
def figures(model: Model) -> TextClause:
    """Read the figures of a domain from its rows; the parameters are those of ``figures_sql``."""
    return typed(text(figures_sql(model)))


def typed(statement: TextClause) -> TextClause:
    """Give the parameters of the figures their types."""
    return statement.bindparams(
        bindparam("width", type_=Double()),
        bindparam("since", type_=DateTime(timezone=True)),
        bindparam("until", type_=DateTime(timezone=True)),
    )
