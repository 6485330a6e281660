"""Who gets in, who does not, and what a browser cannot be made to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.orm import Session

from tasktrail import Status
from tasktrail.access import logins, sessions, tokens
from tests.desk import Desk
from tests.support import SCHEMA
from tests.web.conftest import Browser

PUBLIC = {("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/login"), ("POST", "/login")}
"""All that may be reached without a token, besides the files of ``/static``."""


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Walk all routes, also those of routers that are kept as such."""
    pending: list[Any] = [("", route) for route in app.routes]
    while pending:
        prefix, route = pending.pop()
        if isinstance(route, APIRoute):
            yield from ((method, prefix + route.path) for method in route.methods)
        elif hasattr(route, "original_router"):
            within = prefix + route.include_context.prefix
            pending.extend((within, inner) for inner in route.original_router.routes)


def filled(path: str) -> str:
    return path.replace("{domain}", "job").replace("{tracking_id}", "1").replace("{number}", "1")


@pytest.fixture
def all_routes(shop: Desk, serve: Callable[..., FastAPI]) -> list[tuple[str, str]]:
    return sorted(set(routes(serve())))


def test_no_two_routes_have_one_name(serve: Callable[..., FastAPI]) -> None:
    pending: list[Any] = list(serve().routes)
    names = []
    while pending:
        route = pending.pop()
        if isinstance(route, APIRoute):
            names.append(route.name)
        elif hasattr(route, "original_router"):
            pending.extend(route.original_router.routes)

    assert len(names) > 30
    assert sorted(names) == sorted(set(names))


def audited(shop: Desk) -> list[tuple[str, str]]:
    with shop.engine.connect() as db:
        query = text("SELECT who, what FROM tracking.tasktrail_audit ORDER BY id")
        return [(row.who, row.what) for row in db.execute(query)]


def test_every_route_denies_whoever_has_no_token(browse: Browser, all_routes: list[tuple[str, str]]) -> None:
    assert len(all_routes) > len(PUBLIC) + 5
    for method, path in all_routes:
        if (method, path) not in PUBLIC:
            answer = browse(method, filled(path))

            assert (path, answer.status_code) == (path, 401)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_every_write_denies_a_viewer(
    browse: Browser, shop: Desk, viewer: str, all_routes: list[tuple[str, str]]
) -> None:
    row = shop.job.enqueue()
    writes = [(method, path) for method, path in all_routes if method != "GET" and path.startswith("/api")]

    assert len(writes) >= 3
    for method, path in writes:
        answer = browse(method, filled(path), viewer, json={})
        assert (path, answer.status_code) == (path, 403)
    assert shop.status(row) is Status.PENDING
    assert audited(shop) == [("the tests", "token created")]


@pytest.mark.parametrize("shown", ["", "tt_", "tt_wrong", "tt_" + "x" * 10_000, "Ω"])
def test_a_token_that_is_none_opens_nothing(browse: Browser, shown: str) -> None:
    answer = browse("GET", "/api/domains", headers={b"Authorization": b"Bearer " + shown.encode()})

    assert answer.status_code == 401


def test_a_revoked_token_opens_nothing_and_neither_does_its_session(
    browse: Browser, shop: Desk, viewer: str
) -> None:
    log_in(browse, viewer)
    before = [browse("GET", "/api/domains", viewer), browse("GET", "/api/domains")]
    with Session(shop.engine) as db, db.begin():
        tokens.revoke(db, SCHEMA, "vera", who="the tests")

    assert [answer.status_code for answer in before] == [200, 200]
    assert browse("GET", "/api/domains", viewer).status_code == 401
    assert browse("GET", "/api/domains").status_code == 401


def test_an_expired_token_opens_nothing(browse: Browser, shop: Desk, viewer: str) -> None:
    with shop.engine.begin() as db:
        db.execute(text("UPDATE tracking.tasktrail_tokens SET expires_at = now() - interval '1 s'"))

    assert browse("GET", "/api/domains", viewer).status_code == 401


def test_the_secret_is_not_in_the_database(shop: Desk, viewer: str) -> None:
    with shop.engine.connect() as db:
        stored = db.execute(text("SELECT tasktrail_tokens::text FROM tracking.tasktrail_tokens")).scalar_one()

    assert viewer not in stored
    assert viewer.encode().hex() not in stored


def form_token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def log_in(browse: Browser, token: str) -> Any:
    shown = form_token(browse("GET", "/login").text)
    return browse("POST", "/login", data={"token": token, "csrf_token": shown})


def test_logging_in_sets_a_cookie_that_scripts_and_other_sites_do_not_get(
    browse: Browser, shop: Desk, viewer: str
) -> None:
    answer = log_in(browse, viewer)
    cookie = next(one for one in answer.headers.get_list("set-cookie") if "tasktrail_session=" in one)

    assert answer.status_code == 303
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert viewer not in cookie
    assert audited(shop)[-1] == ("vera", "login")


def test_the_cookie_is_secure_over_https(
    portal: BlockingPortal, shop: Desk, serve: Callable[..., FastAPI], viewer: str
) -> None:
    browse = Browser(portal, serve(), "https://jobs.example")

    assert all("; Secure" in one for one in log_in(browse, viewer).headers.get_list("set-cookie")[:1])


def test_a_session_writes_with_its_form_token_only(browse: Browser, shop: Desk, operator: str) -> None:
    row = shop.job.enqueue()
    path = f"/api/domains/job/jobs/{row.id}/cancel"
    log_in(browse, operator)
    shown = sessions.form_token(browse.client.cookies["tasktrail_session"])
    tries = [{}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": shown, "Sec-Fetch-Site": "cross-site"}]
    refused = [browse("POST", path, json={}, headers=headers).status_code for headers in tries]

    assert refused == [403, 403, 403]
    assert shop.status(row) is Status.PENDING
    assert browse("POST", path, json={}, headers={"X-CSRF-Token": shown}).status_code == 204
    assert shop.status(row) is Status.CANCELLED
    assert audited(shop)[-1] == ("otto", "cancel")


def test_a_login_form_of_another_site_is_refused(browse: Browser, viewer: str) -> None:
    for shown in ("x", sessions.form_token("")):  # the second is what anybody can make who has no secret
        assert browse("POST", "/login", data={"token": viewer, "csrf_token": shown}).status_code == 403


def test_logging_out_ends_the_session(browse: Browser, viewer: str) -> None:
    from tasktrail.access import sessions

    log_in(browse, viewer)
    secret = browse.client.cookies["tasktrail_session"]
    answer = browse("POST", "/logout", data={"csrf_token": sessions.form_token(secret)})
    browse.client.cookies.set("tasktrail_session", secret)

    assert answer.status_code == 303
    assert browse("GET", "/api/domains").status_code == 401


def test_who_is_let_in_without_a_session_has_none_to_end(
    portal: BlockingPortal, serve: Callable[..., FastAPI], shop: Desk
) -> None:
    answer = Browser(portal, serve(is_open=True))("POST", "/logout")

    assert answer.status_code == 403
    assert audited(shop) == []


def test_logins_are_limited_for_all_processes(
    portal: BlockingPortal, shop: Desk, serve: Callable[..., FastAPI], viewer: str
) -> None:
    processes = [Browser(portal, serve()) for _ in range(2)]
    codes = [log_in(processes[number % 2], "tt_wrong").status_code for number in range(logins.LIMIT)]
    last = log_in(processes[0], viewer)

    assert codes == [401] * logins.LIMIT
    assert (last.status_code, last.headers["retry-after"]) == (429, "900")


def test_an_address_may_try_again_later_and_old_tries_are_forgotten(
    browse: Browser, shop: Desk, viewer: str
) -> None:
    with shop.engine.begin() as db:
        db.execute(
            text(
                "INSERT INTO tracking.tasktrail_logins VALUES "
                "('127.0.0.1', now() - interval '1 h', 99), ('10.0.0.1', now() - interval '1 h', 99)"
            )
        )

    assert log_in(browse, viewer).status_code == 303
    with shop.engine.connect() as db:
        assert db.scalar(text("SELECT count(*) FROM tracking.tasktrail_logins")) == 0


@pytest.mark.parametrize("path", ["/login", "/api/domains", "/nowhere", "/static/page.css", "/?x=%00"])
def test_every_answer_forbids_scripts_of_others_frames_and_guessing_of_types(
    browse: Browser, path: str
) -> None:
    headers = browse("GET", path).headers
    policy = headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("base", "expected"),
    [("http://127.0.0.1:8080", 200), ("http://localhost", 200), ("http://evil.example:8080", 401)],
)
def test_an_open_application_lets_this_machine_read_under_its_own_name_only(
    portal: BlockingPortal, shop: Desk, serve: Callable[..., FastAPI], base: str, expected: int
) -> None:
    browse = Browser(portal, serve(is_open=True), base)

    assert browse("GET", "/api/domains").status_code == expected
    assert browse("POST", "/api/domains/job/jobs", json={}).status_code == (403 if expected == 200 else 401)


def test_it_can_be_mounted_under_any_prefix(
    portal: BlockingPortal, shop: Desk, serve: Callable[..., FastAPI], viewer: str
) -> None:
    outer = FastAPI()
    outer.mount("/a/b", serve())
    browse = Browser(portal, outer)
    page = browse("GET", "/a/b/login")

    assert 'action="/a/b/login"' in page.text
    assert 'href="/a/b/static/page.css"' in page.text
    assert browse("GET", "/a/b/static/page.css").status_code == 200
    assert "Path=/a/b/" in page.headers["set-cookie"]
    assert browse("GET", "/a/b/api/domains", viewer).status_code == 200


def test_a_demonstration_is_served_with_a_token_that_ends_with_it(
    shop: Desk, monkeypatch: pytest.MonkeyPatch, portal: BlockingPortal
) -> None:
    import uvicorn

    from tasktrail.cli.serve import serve_to_whoever_looks

    said: list[str] = []
    during: list[int] = []

    def run(server: uvicorn.Server, sockets: object) -> None:
        token = said[1].split()[-1]
        browse = Browser(portal, server.config.app)
        during.append(browse("GET", "/api/domains", token).status_code)
        server.config.app.state.conductor.close()  # type: ignore[union-attr]

    monkeypatch.setattr(uvicorn.Server, "run", run)
    serve_to_whoever_looks(shop.trail, say=said.append)
    with Session(shop.engine) as db:
        left = [one.revoked_at is None for one in tokens.every(db, SCHEMA)]

    assert re.fullmatch(r"dashboard: http://127\.0\.0\.1:\d+/", said[0])
    assert (during, left) == ([200], [False])
