"""Engines and connections, with real servers, real forks and really dropped connections."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from tasktrail import DatabaseUnavailable
from tasktrail.direct import Direct
from tasktrail.engines import Engines
from tests.rows import wait_until

fork = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
BACKEND = select(func.pg_backend_pid())


@pytest.fixture(scope="module")
def database_url(make_database: Callable[..., str], library_template: str) -> str:
    """One database for the file."""
    return make_database(library_template)


@pytest.fixture(scope="module")
def admin(postgres: URL) -> Iterator[Engine]:
    """A connection that sees and ends those of the tests."""
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def engines(database_url: str) -> Iterator[Engines]:
    engines = Engines(database_url, application_name="engines under test")
    yield engines
    engines.dispose()


def pooled_backend(engines: Engines) -> int:
    with engines.pooled() as db:
        return backend(db)


def kept_backend(engines: Engines) -> int:
    with engines.kept() as db:
        return backend(db)


def backend(db: Connection | Direct) -> int:
    return db.execute(BACKEND).scalar()


def in_a_child(function: Callable[[], Any]) -> Any:
    """Fork, call a function in the child, and return what it returned; the child leaves by ``os._exit``."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = ["returned", function()]
        except BaseException as error:
            answer = ["raised", repr(error)]
        finally:
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        kind, value = json.load(pipe)
    os.waitpid(child, 0)
    assert kind == "returned", value
    return value


# Fork


@fork
@pytest.mark.parametrize("lend", [pooled_backend, kept_backend])
def test_a_forked_child_has_a_connection_of_its_own_and_leaves_its_parents_alone(
    engines: Engines, lend: Callable[[Engines], int]
) -> None:
    before = lend(engines)

    child = in_a_child(lambda: [lend(engines), lend(engines)])

    assert len(set(child)) == 1
    assert before not in child
    assert before == lend(engines)


@fork
def test_a_child_that_only_ends_leaves_the_connections_of_its_parent_alone(engines: Engines) -> None:
    kept, pooled = kept_backend(engines), pooled_backend(engines)

    in_a_child(lambda: None)

    assert (kept, pooled) == (kept_backend(engines), pooled_backend(engines))


@fork
def test_a_child_that_closes_its_engines_does_not_close_those_of_its_parent(engines: Engines) -> None:
    kept, pooled = kept_backend(engines), pooled_backend(engines)

    def work_and_close() -> list[int]:
        used = [kept_backend(engines), pooled_backend(engines)]
        engines.dispose()
        return used

    child = in_a_child(work_and_close)

    assert not {kept, pooled} & set(child)
    assert (kept, pooled) == (kept_backend(engines), pooled_backend(engines))


@fork
def test_a_transaction_that_is_open_during_a_fork_goes_on(engines: Engines) -> None:
    with Session(engines.sync) as session:
        session.execute(text("CREATE TEMPORARY TABLE open_during_fork (n int) ON COMMIT DROP"))

        child = in_a_child(lambda: pooled_backend(engines))

        session.execute(text("INSERT INTO open_during_fork VALUES (1)"))
        assert session.scalar(text("SELECT count(*) FROM open_during_fork")) == 1
        assert child != session.scalar(BACKEND)


@fork
def test_children_of_children_and_siblings_share_nothing(engines: Engines) -> None:
    own = kept_backend(engines)

    def child() -> list[int]:
        return [kept_backend(engines), in_a_child(lambda: kept_backend(engines)), kept_backend(engines)]

    first, second = in_a_child(child), in_a_child(child)

    assert first[0] == first[2]
    assert len({own, *first, *second}) == 5


@fork
def test_a_child_works_although_another_thread_of_its_parent_was_connecting(database_url: str) -> None:
    """A lock that is held during a fork is held in the child for ever, so the child must not need it."""
    engines = Engines(database_url)
    made = engines._current
    with made.lock:
        backend_of_child = in_a_child(lambda: pooled_backend(engines))

    assert backend_of_child != pooled_backend(engines)
    engines.dispose()


@fork
async def test_an_async_engine_is_not_shared_with_a_child(engines: Engines) -> None:
    async with engines.asynchronous.connect() as db:
        before = await db.scalar(BACKEND)

    async def ask() -> int:
        async with engines.asynchronous.connect() as db:
            return await db.scalar(BACKEND)

    def of_child() -> int:
        asyncio.events._set_running_loop(None)  # the loop of the parent is not the child's
        return asyncio.new_event_loop().run_until_complete(ask())

    child = in_a_child(of_child)

    async with engines.asynchronous.connect() as db:
        assert before == await db.scalar(BACKEND)
    assert before != child
    await engines.asynchronous.dispose()


# Threads


def test_a_thread_keeps_its_connection(engines: Engines) -> None:
    assert len({kept_backend(engines) for _ in range(5)}) == 1


def test_the_two_durabilities_have_connections_of_their_own(engines: Engines) -> None:
    setting = select(func.current_setting("synchronous_commit"), func.pg_backend_pid())
    with engines.kept("durable") as durable, engines.kept("relaxed") as relaxed:
        first, second = durable.execute(setting).first(), relaxed.execute(setting).first()

    assert (first[0], second[0]) == ("on", "off")
    assert first[1] != second[1]


@pytest.mark.parametrize("lend", ["pooled", "kept"])
def test_each_statement_is_committed_at_once(engines: Engines, lend: str) -> None:
    name = f"committed_{lend}"
    with getattr(engines, lend)() as db:
        db.execute(text(f"CREATE TABLE {name} (n int)"))
        with engines.sync.connect() as other:
            assert other.scalar(text(f"SELECT count(*) FROM {name}")) == 0


@pytest.mark.parametrize("lend", ["pooled", "kept"])
def test_a_connection_runs_a_statement_that_was_written_as_text(engines: Engines, lend: str) -> None:
    with getattr(engines, lend)() as db:
        assert db.execute(text("SELECT 6 * 7")).scalar() == 42


def test_the_clock_of_every_connection_shows_utc(engines: Engines) -> None:
    zone = select(func.current_setting("TimeZone"))
    with engines.pooled() as pooled, engines.kept() as kept, engines.sync.connect() as plain:
        zones = {db.execute(zone).scalar() for db in (pooled, kept, plain)}

    assert zones == {"UTC"}


def test_what_the_url_asks_of_a_connection_is_kept(database_url: str) -> None:
    asked = "options=-c%20work_mem%3D5MB%20-c%20timezone%3DAsia/Tokyo&application_name=nightly"
    engines = Engines(f"{database_url}{'&' if '?' in database_url else '?'}{asked}")
    names = ("work_mem", "TimeZone", "application_name", "synchronous_commit")
    with engines.pooled("relaxed") as pooled, engines.sync.connect() as plain:
        found = [[db.scalar(select(func.current_setting(name))) for name in names] for db in (pooled, plain)]
    engines.dispose()

    assert found == [["5MB", "UTC", "nightly", "off"], ["5MB", "UTC", "nightly", "on"]]


def test_a_silent_server_is_given_up_in_time_unless_the_url_says_otherwise(database_url: str) -> None:
    engines = Engines(f"{database_url}{'&' if '?' in database_url else '?'}keepalives_count=9")
    with engines.pooled() as db, engines.dedicated("alone") as alone:
        connections = [db.connection.driver_connection, alone]
        found = [connection.info.get_parameters() for connection in connections]
    engines.dispose()

    assert [(one["tcp_user_timeout"], one["keepalives_count"]) for one in found] == [("30000", "9")] * 2


def test_every_connection_says_whose_it_is(engines: Engines) -> None:
    with engines.pooled() as db:
        name = db.scalar(text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"))

    assert name == "engines under test"


@pytest.mark.parametrize("threads", [3, 20])
def test_every_thread_of_a_worker_keeps_a_connection_of_its_own(engines: Engines, threads: int) -> None:
    """Also where a worker has more threads than a pool of the usual size has connections."""
    together = threading.Barrier(threads, timeout=10)
    found: list[tuple[int, int]] = []

    def work() -> None:
        first = kept_backend(engines)
        together.wait()
        found.append((first, kept_backend(engines)))

    workers = [threading.Thread(target=survive(work), daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(15)

    assert len({first for first, _ in found}) == threads
    assert all(first == second for first, second in found)


def survive(work: Callable[[], None]) -> Callable[[], None]:
    """A thread that fails shows in what it did not find, not in a traceback of its own."""

    def quietly() -> None:
        try:
            work()
        except Exception:
            return

    return quietly


def test_a_connection_goes_back_when_its_thread_ends(engines: Engines, admin: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(kept_backend, engines).result(10)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(kept_backend, engines).result(10)

    assert first == second


def test_closing_ends_the_connections_of_the_thread_and_the_pool(engines: Engines, admin: Engine) -> None:
    used = {kept_backend(engines), pooled_backend(engines)}

    engines.dispose()

    wait_until(lambda: not used & backends(admin))
    assert kept_backend(engines) not in used


def test_nothing_is_connected_before_it_is_needed(database_url: str, admin: Engine) -> None:
    name = "not needed yet"
    engines = Engines(database_url, application_name=name)
    assert engines.sync
    assert engines.asynchronous

    with admin.connect() as db:
        count = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
        assert db.scalar(count, {"name": name}) == 0


def backends(admin: Engine) -> set[int]:
    with admin.connect() as db:
        return set(db.scalars(text("SELECT pid FROM pg_stat_activity")))


# Dropped connections


def drop(admin: Engine, pid: int) -> None:
    with admin.connect() as db:
        db.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    wait_until(lambda: pid not in backends(admin))


@pytest.mark.parametrize("lend", [pooled_backend, kept_backend])
def test_a_dropped_connection_is_noticed_and_replaced_at_the_next_use(
    engines: Engines, admin: Engine, lend: Callable[[Engines], int]
) -> None:
    before = lend(engines)
    drop(admin, before)

    with suppress(DatabaseUnavailable):
        lend(engines)
    after = lend(engines)

    assert before != after
    assert after == lend(engines)


@pytest.mark.parametrize("lend", [Engines.pooled, Engines.kept])
def test_a_connection_dropped_in_the_middle_of_its_use_is_one_clear_error(
    engines: Engines, admin: Engine, lend: Callable[[Engines], Any]
) -> None:
    def use_after_drop() -> None:
        with lend(engines) as db:
            drop(admin, backend(db))
            db.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable, match="cannot be used: ") as caught:
        use_after_drop()

    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_bad_statement_leaves_a_kept_connection_usable(engines: Engines) -> None:
    before = kept_backend(engines)

    with pytest.raises(psycopg.errors.UndefinedColumn), engines.kept() as db:
        db.execute(text("SELECT nonsense"))

    assert before == kept_backend(engines)


@pytest.mark.parametrize("lend", [Engines.pooled, Engines.kept])
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1/0", "division by zero"),
        ("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)", "canceling statement"),
        ("INSERT INTO tracking.job_tracking (status) VALUES (NULL)", "null value"),
        ("SELECT nonsense", "does not exist"),
        ("DO $$ BEGIN RAISE deadlock_detected; END $$", "deadlock_detected"),
    ],
)
def test_an_error_of_a_statement_is_not_taken_for_one_of_the_connection(
    engines: Engines, statement: str, expected: str, lend: Callable[[Engines], Any]
) -> None:
    with pytest.raises((DBAPIError, psycopg.Error), match=expected), lend(engines) as db:
        db.execute(text(statement))

    with lend(engines) as db:
        assert db.execute(BACKEND).scalar() > 0


def test_a_violated_constraint_keeps_its_class(engines: Engines) -> None:
    with pytest.raises(IntegrityError), engines.pooled() as db:
        db.execute(text("INSERT INTO tracking.job_tracking (status) VALUES ('no')"))


# A database that is not there


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://shop:secret@127.0.0.1:1/shop", "127.0.0.1:1/shop"),
        ("postgresql://shop@127.0.0.1:1/shop?password=secret", "127.0.0.1:1/shop"),
        ("postgresql://shop:secret@/shop?host=/nowhere", "/nowhere"),
        ("postgresql://shop:secret@nowhere.invalid/shop", "nowhere.invalid/shop"),
    ],
)
@pytest.mark.parametrize("lend", [pooled_backend, kept_backend])
def test_an_unreachable_database_is_one_line_that_says_where_and_what_to_check(
    url: str, expected: str, lend: Callable[[Engines], int]
) -> None:
    engines = Engines(url, connect_timeout=1)

    with pytest.raises(DatabaseUnavailable) as caught:
        lend(engines)

    message = str(caught.value)
    assert expected in message.replace("%2F", "/")
    assert message.endswith("Is it running, and is TASKTRAIL_DATABASE_URL right?")
    assert "\n" not in message
    assert "secret" not in message


def test_a_database_that_does_not_exist_is_named(postgres: URL) -> None:
    engines = Engines(postgres.set(database="no_such_database").render_as_string(hide_password=False))

    with pytest.raises(DatabaseUnavailable, match='database "no_such_database" does not exist') as caught:
        pooled_backend(engines)

    assert "\n" not in str(caught.value)


@pytest.fixture
def locked_role(admin: Engine) -> Iterator[str]:
    """A role the server asks for its password."""
    role = "locked"
    with admin.connect() as db:
        db.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'right'"))
        rules = Path(db.scalar(text("SHOW hba_file")))
        original = rules.read_text()
    rules.write_text(f"local all {role} scram-sha-256\n{original}")
    wait_until(lambda: not lets_in(reloaded(admin).set(username=role)))
    yield role
    rules.write_text(original)
    wait_until(lambda: lets_in(reloaded(admin).set(username=role)))
    with admin.connect() as db:
        db.execute(text(f"DROP ROLE {role}"))


def reloaded(admin: Engine) -> URL:
    """Have the server read its rules again."""
    with admin.connect() as db:
        db.execute(text("SELECT pg_reload_conf()"))
    return admin.url


def lets_in(url: URL) -> bool:
    engine = create_engine(url, poolclass=NullPool)
    try:
        engine.connect().close()
    except OperationalError:
        return False
    return True


def test_a_wrong_password_is_one_line_that_does_not_repeat_it(postgres: URL, locked_role: str) -> None:
    url = postgres.set(username=locked_role, password="wr0ng")
    engines = Engines(url.render_as_string(hide_password=False))

    with pytest.raises(DatabaseUnavailable, match="password authentication failed") as caught:
        pooled_backend(engines)

    assert "\n" not in str(caught.value)
    assert "wr0ng" not in str(caught.value)


def test_the_right_password_is_passed_on(postgres: URL, locked_role: str) -> None:
    url = postgres.set(username=locked_role, password="right")
    engines = Engines(url.render_as_string(hide_password=False))

    assert pooled_backend(engines)
    engines.dispose()


def test_a_server_that_does_not_answer_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engines = Engines(f"postgresql://shop@127.0.0.1:{port}/shop", connect_timeout=2)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            pooled_backend(engines)

    assert time.monotonic() - began < 10
