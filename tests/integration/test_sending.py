"""Statements whose answers are read later, on real connections that are dropped, blocked and shared."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, bindparam, create_engine, text
from sqlalchemy.dialects.postgresql import insert

from tasktrail import DatabaseUnavailable
from tasktrail.engines import Engines
from tasktrail.sending import Sender
from tests.rows import somebody_waits_for_a_lock
from tests.waiting import until

NUMBERS = Table("numbers", MetaData(), Column("n", Integer, primary_key=True), Column("word", String(5)))
ADD = insert(NUMBERS).values(n=bindparam("n"), word=bindparam("word")).returning(NUMBERS.c.n)
RENAME = (
    NUMBERS.update()
    .where(NUMBERS.c.n == bindparam("number"))
    .values(word=bindparam("new"))
    .returning(NUMBERS.c.n)
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Looks from outside."""
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    NUMBERS.create(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def database_url(make_database: Callable[..., str], library_template: str) -> str:
    return make_database(library_template)


@pytest.fixture
def engines(database_url: str, engine: Engine) -> Iterator[Engines]:  # with its table
    engines = Engines(database_url, application_name="sender")
    yield engines
    engines.dispose()


def words(engine: Engine) -> dict[int, str]:
    with engine.connect() as db:
        return {row.n: row.word for row in db.execute(NUMBERS.select().order_by(NUMBERS.c.n))}


def drop(engine: Engine) -> None:
    """End the sender's connection from outside, and wait until its backend is gone."""
    of_sender = "FROM pg_stat_activity WHERE application_name = 'sender'"
    with engine.begin() as db:
        db.execute(text(f"SELECT pg_terminate_backend(pid) {of_sender}"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        until(lambda: db.scalar(text(f"SELECT count(*) {of_sender}")) == 0)


def test_a_statement_takes_effect_although_nobody_reads_its_answer(engine: Engine, engines: Engines) -> None:
    with engines.sender() as sender:
        sent = sender.send(ADD, {"n": 1, "word": "one"})
    until(lambda: words(engine) == {1: "one"})
    assert not sent.is_answered


def test_the_answer_says_how_many_rows_there_were(engines: Engines) -> None:
    with engines.sender() as sender:
        assert sender.send(ADD, {"n": 1, "word": None}).rows() == 1
        assert sender.send(RENAME, {"number": 1, "new": "uno"}).rows() == 1
        assert sender.send(RENAME, {"number": 2, "new": "due"}).rows() == 0


@pytest.mark.parametrize(("prepares", "expected"), [(True, {"kept", "sent"}), (False, set())])
def test_the_server_keeps_statements_for_a_connection_unless_it_may_not(
    database_url: str, engine: Engine, prepares: bool, expected: set[str]
) -> None:
    engines = Engines(database_url, prepared_statements=prepares)
    names = text("SELECT name, statement FROM pg_prepared_statements")
    with engines.sender() as sender:
        assert sender.send(ADD, {"n": 1, "word": "one"}).rows() == 1
        assert sender.send(RENAME, {"number": 1, "new": "uno"}).rows() == 1
        there = sender.connection.execute(names).all()
        found = {"sent" for row in there if row.name.startswith("tasktrail_")}
    with engines.kept() as db:
        for _ in range(2):
            assert db.execute(RENAME, {"number": 1, "new": "ein"}).all() == [(1,)]
        found |= {"kept" for row in db.execute(names) if "UPDATE" in row.statement}
    engines.dispose()

    assert found == expected
    assert words(engine) == {1: "ein"}


def test_an_answer_can_be_asked_for_again_and_by_other_threads(engines: Engines) -> None:
    answers: list[int] = []
    with engines.sender() as sender:
        sent = sender.send(ADD, {"n": 1, "word": "one"})
    threads = [threading.Thread(target=lambda: answers.append(sent.rows())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [*answers, sent.rows()] == [1] * 9


def test_the_error_of_a_statement_is_raised_where_its_answer_is_read(engines: Engines) -> None:
    with engines.sender() as sender:
        sender.send(ADD, {"n": 1, "word": "one"}).rows()
        doubled = sender.send(ADD, {"n": 1, "word": "one"})
        for _ in range(2):
            with pytest.raises(psycopg.errors.UniqueViolation):
                doubled.rows()
        too_long = sender.send(RENAME, {"number": 1, "new": "longer than five"})
        with pytest.raises(psycopg.errors.StringDataRightTruncation):
            too_long.rows()
        assert sender.send(RENAME, {"number": 1, "new": "uno"}).rows() == 1


def test_a_connection_is_kept_while_its_answers_are_read(engines: Engines) -> None:
    seen: list[Sender] = []
    for n in range(3):
        with engines.sender() as sender:
            seen.append(sender)
            sender.send(ADD, {"n": n, "word": "x"}).rows()
    assert seen[0] is seen[1] is seen[2]


def test_an_unread_answer_is_not_mixed_up_with_the_next_one(engine: Engine, engines: Engines) -> None:
    with engines.sender() as sender:
        first = sender.send(ADD, {"n": 1, "word": "one"})
    with engines.sender() as other:
        assert other is not sender
        assert other.send(RENAME, {"number": 7, "new": "x"}).rows() == 0
    until(lambda: words(engine) == {1: "one"})
    assert not first.is_answered


def test_a_connection_dropped_before_the_answer_is_an_error_of_the_answer(
    engine: Engine, engines: Engines
) -> None:
    with engine.begin() as holder, engines.sender() as sender:
        sender.send(ADD, {"n": 1, "word": "one"}).rows()
        sender.send(RENAME, {"number": 1, "new": "one"}).rows()
        holder.execute(text("LOCK TABLE numbers"))
        sent = sender.send(RENAME, {"number": 1, "new": "uno"})
        until(lambda: somebody_waits_for_a_lock(engine))
        drop(engine)
        with pytest.raises(psycopg.OperationalError):
            sent.rows()
    assert words(engine) == {1: "one"}


def test_a_connection_dropped_while_nothing_is_awaited_is_replaced(engine: Engine, engines: Engines) -> None:
    with engines.sender() as sender:
        sender.send(ADD, {"n": 1, "word": "one"}).rows()
    drop(engine)
    with engines.sender() as fresh:
        assert fresh is not sender
        assert fresh.send(ADD, {"n": 2, "word": "two"}).rows() == 1


def test_a_database_that_is_not_there_is_one_clear_error() -> None:
    engines = Engines("postgresql://postgres@127.0.0.1:1/nowhere")
    with pytest.raises(DatabaseUnavailable, match="cannot be used"), engines.sender():
        pass


def test_closing_gives_the_connection_back(engine: Engine, engines: Engines) -> None:
    with engines.sender() as sender:
        sender.send(ADD, {"n": 1, "word": "one"}).rows()
    engines.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sender'")
        until(lambda: db.scalar(query) == 0)


def test_a_wait_that_is_interrupted_can_be_taken_up_again(engine: Engine, engines: Engines) -> None:
    def interrupt(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with engine.begin() as holder, engines.sender() as sender:
            sender.send(ADD, {"n": 1, "word": "one"}).rows()
            sender.send(RENAME, {"number": 1, "new": "one"}).rows()
            holder.execute(text("LOCK TABLE numbers"))
            sent = sender.send(RENAME, {"number": 1, "new": "uno"})
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(TimeoutError):
                sent.rows()
            assert not sent.is_answered
    finally:
        signal.signal(signal.SIGALRM, before)
    assert sent.rows() == 1
    assert words(engine) == {1: "uno"}
