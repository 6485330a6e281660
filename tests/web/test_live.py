"""Live updates: however many pages are open, the database is asked once."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from sqlalchemy import event
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from tasktrail.access import tokens
from tasktrail.web import live as living
from tasktrail.web.live import Live
from tasktrail.web.reads import Reads
from tests.desk import Desk
from tests.support import SCHEMA
from tests.web.conftest import Browser


async def test_fifty_open_pages_cost_as_many_looks_as_one(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "INTERVAL", 0.05)
    live = Live(shop.trail, Reads())

    async def hear(count: int) -> list[str]:
        heard = []
        async for said in live.follow():
            if said.startswith("event: look"):
                heard.append(said)
            if len(heard) == count:
                return heard
        return heard

    heard = await asyncio.wait_for(asyncio.gather(*(hear(3) for _ in range(50))), 20)

    assert all(len(one) == 3 for one in heard)
    assert live.looks <= 6


async def test_it_looks_no_more_when_nobody_follows(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "INTERVAL", 0.01)
    live = Live(shop.trail, Reads())
    stream = live.follow()
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    assert live._task is not None
    await asyncio.wait_for(live._task, 5)

    assert live._followers == set()


async def test_a_look_that_fails_is_said_and_followed_by_others(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living, "INTERVAL", 0.01)
    live = Live(shop.trail, Reads())
    looks = iter([ProgrammingError("look", None, Exception("a lock was not had"))])

    def look() -> dict[str, object]:
        for error in looks:
            raise error
        return {"at": "now"}

    monkeypatch.setattr(live, "look", look)
    stream = live.follow()
    heard = [await asyncio.wait_for(anext(stream), 5) for _ in range(3)]
    await stream.aclose()

    assert [said.partition("\n")[0] for said in heard] == ["retry: 3000", "event: trouble", "event: look"]


async def test_a_page_hears_when_the_rows_of_a_domain_change(shop: Desk) -> None:
    live = Live(shop.trail, Reads())
    before = live.look()
    shop.job.enqueue()
    after = live.look()

    changed = {name for name in before["domains"] if before["domains"][name] != after["domains"][name]}
    assert changed == {"job"}


def test_pages_that_follow_live_share_their_reads_and_who_asks_is_still_looked_up_soon(
    browse: Browser, shop: Desk, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    event.listen(shop.trail.engines.sync, "before_cursor_execute", lambda *args: statements.append(args[2]))
    one = {"X-Live": "1", "Accept": "text/html"}
    now = time.monotonic()
    monkeypatch.setattr("tasktrail.web.reads.time.monotonic", lambda: now)
    first = browse("GET", "/", viewer, headers=one)
    after_one = len(statements)
    codes = {browse("GET", "/", viewer, headers=one).status_code for _ in range(20)}
    after_many = len(statements)
    with Session(shop.engine) as db, db.begin():
        tokens.revoke(db, SCHEMA, "vera", who="the tests")
    now += 2

    assert (first.status_code, codes) == (200, {200})
    assert after_one > 0
    assert after_many == after_one
    assert browse("GET", "/api/domains", viewer).status_code == 401
    assert browse("GET", "/", viewer, headers=one).status_code in {303, 401}


@pytest.mark.parametrize(("took", "rest"), [(0.001, 2.0), (0.1, 2.0), (1.0, 9.0), (5.0, 45.0)])
def test_a_slow_database_is_looked_at_less_often(took: float, rest: float) -> None:
    assert living.rest_after(took) == pytest.approx(rest)


def test_many_who_ask_the_same_at_once_are_answered_by_one_read() -> None:
    reads = Reads()
    barrier = threading.Barrier(8)
    count = 0
    answers = []

    def read() -> int:
        nonlocal count
        count += 1
        return count

    def ask() -> None:
        barrier.wait()
        answers.append(reads.shared("page", read, fresh=60))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [1] * 8
    assert reads.shared("another", read) == 2


def test_an_answer_that_is_too_old_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads()
    now = time.monotonic()
    monkeypatch.setattr("tasktrail.web.reads.time.monotonic", lambda: now)
    first = reads.shared("page", object)
    monkeypatch.setattr("tasktrail.web.reads.time.monotonic", lambda: now + 2)

    assert reads.shared("page", object) is not first


def test_an_answer_serves_until_the_poller_looks_again_for_those_it_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = Reads()
    now = time.monotonic()
    monkeypatch.setattr("tasktrail.web.reads.time.monotonic", lambda: now)
    reads.looked()
    now += 0.1
    first = reads.shared("page", object, until_look=True)
    now += 5
    late = reads.shared("page", object, until_look=True)
    by_itself = reads.shared("page", object)
    now += 0.1
    reads.looked()
    now += 0.1
    after_the_look = reads.shared("page", object, until_look=True)
    now += 11
    long_after = reads.shared("page", object, until_look=True)

    assert late is first
    assert by_itself is not first
    assert after_the_look is not by_itself
    assert long_after is not after_the_look
