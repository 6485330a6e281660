"""Jobs through a real PgBouncer, as docs/howto/use-pgbouncer.md sets it up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from tasktrail import Enqueued, Filter, Settings, Status
from tests.acceptance.conftest import Live, live, outcomes
from tests.acceptance.worker_app import build
from tests.pgbouncer import PgBouncer
from tests.waiting import until

POOL_SIZE = 6
CONNECTIONS = text("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")


@pytest.fixture
def direct(
    database_url: str, redis_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Live]:
    """Tasks of a process that goes by PgBouncer."""
    with live(database_url, redis_url, request.node.name, tmp_path) as found:
        yield found


@contextmanager
def through(pgbouncer: PgBouncer, direct: Live) -> Iterator[Live]:
    """Tasks of a process that goes through PgBouncer, looked at from beside it."""
    given = direct.tasks.trail.settings
    assert given.database_url is not None
    url = pgbouncer.url(given.database_url.get_secret_value())
    settings = Settings.load(database_url=url, broker_url=given.broker_url)
    tasks = build(settings, queue=direct.tasks.trail.app.conf.task_default_queue)
    yield replace(direct, tasks=tasks)
    tasks.trail.engines.dispose()
    tasks.trail.app.close()


@contextmanager
def maintaining(direct: Live) -> Iterator[None]:
    """Maintenance alone, which goes by PgBouncer."""
    stop = threading.Event()
    thread = threading.Thread(target=direct.tasks.trail.maintenance().run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)

    assert not thread.is_alive()


def work(shop: Live) -> None:
    """Enqueue jobs of every kind, and see what becomes of them."""
    trail = shop.tasks.trail
    many = [shop.tasks.job.enqueue(payload="effect") for _ in range(20)]
    many += [shop.tasks.async_job.enqueue(payload="effect") for _ in range(20)]  # with the same ids
    with Session(trail.engines.sync) as session:
        many.append(shop.tasks.job.enqueue(session, payload="nothing"))
        session.commit()
    failing: Enqueued = shop.tasks.job.enqueue(payload="fail", max_attempts=2)
    held, _ = shop.hold("job")
    waiting = shop.tasks.async_job.enqueue(payload="wait")
    shop.tasks.job.cancel(held.id, "not needed")

    assert {shop.ended(job).status for job in many} == {Status.COMPLETED}
    assert [shop.effects(job) for job in many[:20]] == [2] * 20
    assert shop.ended(failing).status == Status.FAILED
    assert outcomes(shop.row(failing)) == [(1, "error"), (2, "error")]
    assert shop.row(held).status == Status.CANCELLED
    until(lambda: "cancelled, cancelled: not needed" in shop.told(held))
    assert shop.ended(waiting).status == Status.COMPLETED
    failed = Filter(states=[Status.FAILED], ids=[failing.id])
    assert shop.tasks.job.count_where(failed, [Status.FAILED]) == 1
    assert shop.tasks.job.retry_where(failed) == 1
    assert shop.ended(failing).attempts == 5  # the task has three for each round
    trail.check()


def test_jobs_run_through_a_pooler_that_gives_each_transaction_another_connection(
    direct: Live, postgres: URL, servers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKTRAIL_PREPARED_STATEMENTS", "false")
    with (
        PgBouncer(servers / "transactions", postgres, "transaction", pool_size=POOL_SIZE) as pgbouncer,
        through(pgbouncer, direct) as shop,
        maintaining(direct),
        shop.worker(heartbeat_interval=0.2, maintenance="false"),
    ):
        work(shop)
        with direct.engine.connect() as db:
            names = Counter(db.scalars(CONNECTIONS))

        assert names["tasktrail"] <= POOL_SIZE + 4  # those of the maintenance that goes by it
        logs = "".join(log.read_text() for log in direct.folder.glob("*.log"))
        assert "leases were not renewed" not in logs


def test_nothing_has_to_be_set_for_a_pooler_that_keeps_sessions(
    direct: Live, postgres: URL, servers: Path
) -> None:
    with (
        PgBouncer(servers / "sessions", postgres, "session", pool_size=50) as pgbouncer,
        through(pgbouncer, direct) as shop,
        shop.worker(heartbeat_interval=0.2, maintenance_interval=0.2),
    ):
        work(shop)
