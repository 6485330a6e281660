"""The application over the tasks of ``tests/desk``, with a token for each role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from sqlalchemy.orm import Session

from tasktrail.access import tokens
from tasktrail.access.tokens import Role
from tasktrail.web import create_app
from tests.desk import Desk, desk
from tests.support import SCHEMA


class Browser:
    """Sends requests to an ASGI application, and keeps cookies as a browser does."""

    def __init__(self, portal: BlockingPortal, app: object, base: str = "http://127.0.0.1:8080") -> None:
        self._portal = portal
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
        self.client = httpx.AsyncClient(transport=transport, base_url=base)

    def __call__(self, method: str, path: str, token: str | None = None, **more: object) -> httpx.Response:
        headers = dict(more.pop("headers", {}))  # type: ignore[call-overload]
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self._portal.call(lambda: self.client.request(method, path, headers=headers, **more))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """An event loop for the requests of all tests."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def shop(database_url: str, redis_url: str) -> Iterator[Desk]:
    """Three domains on a fresh database, and a queue that nobody reads."""
    with desk(database_url, redis_url, "queue of the web tests") as opened:
        opened.sent()
        yield opened


def make_token(shop: Desk, name: str, role: Role) -> str:
    with Session(shop.engine) as db, db.begin():
        return tokens.create(db, SCHEMA, name, role, who="the tests")


@pytest.fixture
def viewer(shop: Desk) -> str:
    """The token of somebody who may look on."""
    return make_token(shop, "vera", Role.VIEWER)


@pytest.fixture
def operator(shop: Desk) -> str:
    """The token of somebody who may write."""
    return make_token(shop, "otto", Role.OPERATOR)


@pytest.fixture
def serve(shop: Desk) -> Iterator[Callable[..., FastAPI]]:
    """Makes applications, and ends what goes on in them."""
    made: list[FastAPI] = []

    def make(**options: Any) -> FastAPI:
        made.append(create_app(shop.trail, **options))
        return made[-1]

    yield make
    for app in made:
        app.state.conductor.close()


@pytest.fixture
def browse(portal: BlockingPortal, serve: Callable[..., FastAPI]) -> Browser:
    """Requests to the application as it is by default."""
    return Browser(portal, serve())
