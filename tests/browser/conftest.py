"""The dashboard in a real browser, on a real server and a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from conftest import MakeDatabase
from tasktrail.access.tokens import Role
from tasktrail.web import create_app
from tests.desk import Desk, desk
from tests.serving import served
from tests.web.conftest import make_token

expect.set_options(timeout=15_000)


@dataclass
class Place:
    """A served dashboard.

    Attributes:
        url: where it is.
        shop: the tasks behind it.
        tokens: of an operator and a viewer, by name.
    """

    url: str
    shop: Desk
    tokens: dict[str, str]


@dataclass
class Visit:
    """A page of a browser, and what went wrong on it.

    Attributes:
        page: the page.
        place: the dashboard.
        troubles: errors on the console, and requests to other hosts.
    """

    page: Page
    place: Place
    troubles: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Go to a path."""
        self.page.goto(self.place.url + path)
        return self.page

    def log_in(self, who: str) -> Page:
        """Log in as somebody."""
        page = self.go("/login")
        page.get_by_label("Token").fill(self.place.tokens[who])
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        return page


@pytest.fixture
def place(make_database: MakeDatabase, library_template: str, redis_url: str) -> Iterator[Place]:
    """A dashboard that is served, on a fresh database."""
    with desk(make_database(library_template), redis_url, "queue of the browser tests") as shop:
        tokens = {
            "otto": make_token(shop, "otto", Role.OPERATOR),
            "vera": make_token(shop, "vera", Role.VIEWER),
        }
        with served(create_app(shop.trail)) as url:
            yield Place(url, shop, tokens)


@pytest.fixture
def visit(chromium: Browser, place: Place) -> Iterator[Callable[..., Visit]]:
    """Opens pages as visitors do; at the end nothing may have gone wrong on any of them."""
    visits: list[Visit] = []

    def open_page(**options: object) -> Visit:
        page = chromium.new_context(**options).new_page()  # type: ignore[arg-type]
        made = Visit(page, place)
        page.on("console", lambda message: _note(made, message))
        page.on("pageerror", lambda error: made.troubles.append(str(error)))
        page.on("request", lambda request: _check_host(made, request))
        visits.append(made)
        return made

    yield open_page
    for one in visits:
        one.page.context.close()
    assert [trouble for one in visits for trouble in one.troubles] == []


def _note(visit: Visit, message: ConsoleMessage) -> None:
    if message.type in {"error", "warning"}:
        visit.troubles.append(message.text)


def _check_host(visit: Visit, request: Request) -> None:
    asked = urlsplit(request.url)
    if asked.scheme != "data" and asked.netloc != urlsplit(visit.place.url).netloc:
        visit.troubles.append(f"a request to another host: {request.url}")
