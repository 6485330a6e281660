"""What one would write first: tables counted whole, offsets, percentiles of rows, errors folded."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from bench.monitoring_rows import DOMAINS
from tasktrail.fingerprints import group_text
from tasktrail.guards import table_of
from tasktrail.monitoring.queries import Window
from tasktrail.registry import Domain

HISTORY: Final = """
SELECT date_bin(:step, completed_at, :start), status, count(*),
    percentile_cont(ARRAY[0.5, 0.95, 0.99])
        WITHIN GROUP (ORDER BY extract(epoch FROM completed_at - started_at))
FROM {table} WHERE completed_at >= :start AND completed_at < :end GROUP BY 1, 2
"""


def overview(db: Connection, window: Window) -> None:
    span = {"step": window.step, "start": window.start, "end": window.end}
    for domain in DOMAINS:
        name = table_of(domain.model).fullname
        db.execute(text(f"SELECT status, count(*) FROM {name} GROUP BY status")).all()
        db.execute(text(f"SELECT min(next_attempt_at) FROM {name} WHERE status = 'PENDING'")).all()
        db.execute(text(HISTORY.format(table=name)), span).all()
        created = (
            f"SELECT date_bin(:step, created_at, :start), count(*) FROM {name} "
            "WHERE created_at >= :start GROUP BY 1"
        )
        db.execute(text(created), span).all()


def failures(db: Connection, window: Window) -> None:
    for domain in DOMAINS:
        name, group = table_of(domain.model).fullname, group_text("error_message").replace(":", r"\:")
        query = (
            f"SELECT {group}, count(*) FROM {name} "
            "WHERE status = 'FAILED' AND completed_at >= :start GROUP BY 1"
        )
        db.execute(text(query), {"start": window.start}).all()


def listed(db: Connection, domain: Domain, where: str, offset: int = 0) -> None:
    name = table_of(domain.model).fullname
    db.execute(text(f"SELECT count(*) FROM {name} WHERE {where}")).all()
    page = f"SELECT * FROM {name} WHERE {where} ORDER BY created_at DESC LIMIT 50 OFFSET {offset}"
    db.execute(text(page)).all()


def workers(db: Connection) -> None:
    for domain in DOMAINS:
        name = table_of(domain.model).fullname
        db.execute(
            text(f"SELECT worker, status, count(*), max(completed_at) FROM {name} GROUP BY 1, 2")
        ).all()
