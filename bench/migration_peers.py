"""What the copy and its verification are measured against."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from sqlalchemy.ext.asyncio import AsyncSession

from portfolio.etfs.tracking import EtfUpdateTrackingService
from portfolio.legacy.plan import PLAN
from tasktrail import Status
from tasktrail.engines import Engines
from tasktrail.migration.groups import ranked
from tasktrail.migration.names import listed, qualified
from tasktrail.migration.plan import Mapped, Route
from tasktrail.migration.session import Session
from tasktrail.migration.staging import Staging

LOOP = 1_000
"""Rows that a loop is given; its rate does not depend on how many there are."""

NOT_COMPARABLE = frozenset({"missing_dates"})
"""Columns of a type that reladiff does not know."""


def raw_copy(db: Session, stagings: list[Staging]) -> None:
    """One INSERT ... SELECT of the same transform for each target, without a ledger."""
    for staging in stagings:
        for route in staging.transform.table.routes:
            rows = staging.transform.rows(route, f"{staging.transform.source} s")
            newest = ranked(staging.transform.table, route, f"({rows}) st", "_reason IS NULL")
            names = listed(list(route.columns))
            db.run(
                f"INSERT INTO {qualified(route.target)} ({names}, next_attempt_at) "
                f"SELECT {names}, NULL FROM ({newest}) newest WHERE _place = 1"
            )


def raw_checksum(db: Session, stagings: list[Staging]) -> None:
    """Read both sides and add up a checksum of each row; says whether they are equal, not where."""
    for staging in stagings:
        for route in staging.transform.table.routes:
            rows = staging.transform.rows(route, f"{staging.transform.source} s")
            names = listed(list(route.columns))
            for side in (f"({rows}) side WHERE _reason IS NULL", qualified(route.target)):
                db.value(f"SELECT sum(hashtext(ROW({names})::text)) FROM {side}")


def insert_loop(url: str) -> float:
    """Rows a second of the shortest loop there is: map a row in Python, insert it, commit."""
    route = PLAN.table("etf_updates").routes[0]
    columns = listed(list(route.columns))
    places = ", ".join(f"%({name})s" for name in route.columns)
    insert = f"INSERT INTO {route.target} ({columns}) VALUES ({places})".encode()
    with psycopg.connect(url, autocommit=True) as connection:
        legacy = _legacy_rows(connection)
        began = time.perf_counter()
        for row in legacy:
            made = route.twin(row)
            if isinstance(made, Mapped):
                connection.execute(insert, dict(made.values))
        return len(legacy) / (time.perf_counter() - began)


def service_loop(url: str) -> float:
    """Rows a second of the loop that users write: create a row by the async service, then set its state.

    Each call commits. A row gets to its last state by PROCESSING, as every job does.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        legacy = _legacy_rows(connection)
    return asyncio.run(_through_service(Engines(url), legacy))


async def _through_service(engines: Engines, legacy: list[dict[str, Any]]) -> float:
    route = PLAN.table("etf_updates").routes[0]
    domain = ("etf_id", "update_type", "start_date", "end_date", "missing_dates", "notes")
    async with AsyncSession(engines.asynchronous, expire_on_commit=False) as db:
        service = EtfUpdateTrackingService(db)
        began = time.perf_counter()
        for row in legacy:
            made = route.twin(row)
            if not isinstance(made, Mapped):
                continue
            values = made.values
            tracking_id = await service.create_tracking(**{name: values[name] for name in domain})
            status = Status(str(values["status"]))
            if status is not Status.PENDING:
                await service.update_status(tracking_id, Status.PROCESSING)
            if status.is_ended:
                error = values["error_message"]
                await service.update_status(tracking_id, status, None if error is None else str(error))
        took = time.perf_counter() - began
    await engines.asynchronous.dispose()
    return len(legacy) / took


def reladiff_seconds(url: str, db: Session, staging: Staging, route: Route) -> dict[str, float]:
    """Seconds that reladiff takes to compare a target with a view of the transform, by algorithm.

    Args:
        url: of the database.
        db: a session in it.
        staging: of a table whose rows keep their ids.
        route: the one of its routes.

    Raises:
        ImportError: reladiff is not installed.
        SystemExit: it found a difference, so the figure would mean nothing.
    """
    from reladiff import Algorithm, connect, connect_to_table, diff_tables  # noqa: PLC0415  # optional

    rows = staging.transform.rows(route, f"{staging.transform.source} s")
    names = [name for name in route.columns if name not in NOT_COMPARABLE]
    db.run(f"CREATE VIEW bench_transformed AS SELECT {listed(names)} FROM ({rows}) r WHERE _reason IS NULL")
    parts, options = urlsplit(url), parse_qs(urlsplit(url).query)
    where = {
        "driver": "postgresql",
        "host": options.get("host", [parts.hostname or "localhost"])[0],
        "port": int(options.get("port", [parts.port or 5432])[0]),
        "user": parts.username or "postgres",
        "database": parts.path.lstrip("/"),
    }
    seconds = {}
    for algorithm in (Algorithm.HASHDIFF, Algorithm.JOINDIFF):
        connection = connect(where)
        sides = [
            connect_to_table(connection, name, "id", extra_columns=tuple(one for one in names if one != "id"))
            for name in ("bench_transformed", route.target)
        ]
        began = time.perf_counter()
        different = next(iter(diff_tables(*sides, algorithm=algorithm)), None)
        seconds[algorithm.name.lower()] = time.perf_counter() - began
        connection.close()
        if different is not None:
            raise SystemExit(f"reladiff {algorithm.name}: {different}")
    db.run("DROP VIEW bench_transformed")
    return seconds


def _legacy_rows(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    rows = connection.execute(
        f"SELECT *, TRUE AS etf_exists FROM etf_updates ORDER BY id LIMIT {LOOP}".encode()
    )
    names = [column.name for column in rows.description or ()]
    return [dict(zip(names, row, strict=True)) for row in rows]
