"""What is refused before it is looked at, on an application that only counts what it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tasktrail.web.armour import HEADERS, LARGEST_BODY, LONGEST_PATH, LONGEST_QUERY, Armour


async def count_bytes(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def ask(path: str, **more: object) -> httpx.Response:
    transport = httpx.ASGITransport(Armour(count_bytes))
    async with httpx.AsyncClient(transport=transport, base_url="http://armour") as client:
        return await client.post(path, **more)


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """A body whose length no header says."""
    for start in range(0, size, 65_536):
        yield b"x" * min(65_536, size - start)


@pytest.mark.parametrize("path", ["/", "/" + "p" * (LONGEST_PATH - 1), "/?" + "q" * LONGEST_QUERY])
async def test_what_is_just_small_enough_gets_through_and_every_answer_has_the_headers(path: str) -> None:
    answer = await ask(path, content=in_pieces(LARGEST_BODY))

    assert (answer.status_code, answer.text) == (200, str(LARGEST_BODY))
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/" + "p" * LONGEST_PATH, 414, "a path may have 2,048 characters"),
        ("/?" + "q" * (LONGEST_QUERY + 1), 414, "a query string may have 8,192 bytes, this one has 8,193"),
        ("/?a=%00", 400, "path and query string may hold no control characters"),
        ("/%7f", 400, "path and query string may hold no control characters"),
        ("/?a=%ff", 400, "the query string is not UTF-8"),
    ],
)
async def test_an_odd_path_or_query_is_refused_with_the_reason(path: str, status: int, said: str) -> None:
    answer = await ask(path)

    assert (answer.status_code, answer.json()["detail"]) == (status, said)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_that_is_too_large_is_refused_whether_or_not_its_length_is_said(
    is_announced: bool,
) -> None:
    size = LARGEST_BODY + 1
    answer = await ask("/", content=b"x" * size if is_announced else in_pieces(size))

    assert (answer.status_code, answer.json()["detail"]) == (413, "a body may have 1,048,576 bytes")
