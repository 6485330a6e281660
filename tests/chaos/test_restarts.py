"""What a restart of PostgreSQL may cost, and what not."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Float, literal, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from tasktrail import DatabaseUnavailable
from tasktrail.embedded import EmbeddedPostgres, StopMode
from tasktrail.engines import Engines
from tests.chaos.arena import arena
from tests.chaos.plan import Blow
from tests.waiting import until

ONE = select(literal(1))


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that these tests may restart."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("own-postgres"), options={"fsync": "off"})
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture
def engines(own_postgres: EmbeddedPostgres) -> Iterator[Engines]:
    """Engines on it."""
    own_postgres.start()
    engines = Engines(own_postgres.url)
    yield engines
    engines.dispose()


def use_kept(engines: Engines) -> object:
    with engines.kept() as db:
        return db.execute(ONE).scalar()


def use_pooled(engines: Engines) -> object:
    with engines.pooled() as db:
        return db.scalar(ONE)


def use_session(engines: Engines) -> object:
    with Session(engines.sync) as session:
        return session.scalar(ONE)


@pytest.mark.parametrize("use", [use_kept, use_pooled, use_session])
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_connection_dropped_while_it_was_idle_is_replaced_unnoticed(
    engines: Engines, own_postgres: EmbeddedPostgres, use: Callable[[Engines], object], mode: StopMode
) -> None:
    assert use(engines) == 1
    own_postgres.restart(mode)

    assert use(engines) == 1


async def test_so_is_one_of_the_asynchronous_engine(engines: Engines, own_postgres: EmbeddedPostgres) -> None:
    async def use() -> object:
        async with AsyncSession(engines.asynchronous) as session:
            return await session.scalar(ONE)

    assert await use() == 1
    await asyncio.to_thread(own_postgres.restart, "fast")

    assert await use() == 1

    await engines.asynchronous.dispose()


@pytest.mark.parametrize("use", [use_kept, use_pooled])
def test_a_thread_that_met_an_outage_recovers_when_the_database_is_back(
    engines: Engines, own_postgres: EmbeddedPostgres, use: Callable[[Engines], object]
) -> None:
    use(engines)
    own_postgres.stop("immediate")
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            use(engines)
    own_postgres.start()

    assert use(engines) == 1


def test_a_kept_connection_whose_statement_was_interrupted_is_replaced(engines: Engines) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.get_ident()
    try:
        threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGUSR1)).start()
        with pytest.raises(Interrupted), engines.kept() as db:
            db.execute(text("SELECT pg_sleep(5)"))
        busy = db._cursor.connection.info.transaction_status
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert busy is not TransactionStatus.IDLE
    assert use_kept(engines) == 1


def test_numbers_come_back_as_the_types_that_their_columns_have(engines: Engines) -> None:
    with engines.kept() as db:
        assert db.execute(select(literal(1.5, Float()))).scalar() == 1.5


@pytest.mark.timeout(300)
def test_a_claim_that_a_crash_of_the_database_lost_costs_nothing(tmp_path: Path) -> None:
    committed = text("SELECT count(*) FROM chaos.history WHERE claim_became = :claim")
    struck = []
    lazy = {"wal_writer_delay": "10s"}
    with arena(tmp_path, "redis", options=lazy, size=1, concurrency=2, redispatch_after=1.0) as arena_:
        field = arena_.field
        field.muster()

        def is_lost_in_a_crash(number: int) -> bool:
            field.tasks.job.enqueue(key=str(number), kind="slow", seconds=2.0)
            *_, began = until(lambda: field.evidence("start")[number:], seconds=30)
            at = datetime.now(UTC)
            arena_.postgres.restart("immediate")
            blow = Blow.CRASH_POSTGRES.value
            struck.append({"blow": blow, "detail": "", "at": at, "until": datetime.now(UTC)})
            with field.engine.connect() as db:
                is_lost = db.scalar(committed, began) == 0
            until(lambda: field.active() == 0, seconds=30)
            return is_lost

        assert any(is_lost_in_a_crash(len(field.evidence("start"))) for _ in range(10))

        field.fleet.close()

        assert field.violations(struck=struck).keys() <= {"no_row_was_not_ordered"}
