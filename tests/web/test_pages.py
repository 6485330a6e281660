"""The pages: what they show to whom, and that nothing in a row can do anything on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from sqlalchemy import text

from tasktrail import Status
from tests.desk import Desk
from tests.web.conftest import Browser
from tests.web.test_access import filled, form_token, log_in, routes


@pytest.fixture
def all_pages(serve: Callable[..., FastAPI]) -> list[str]:
    """The paths of all pages; not the stream, which does not end."""
    return [
        filled(path)
        for method, path in sorted(set(routes(serve())))
        if method == "GET" and not path.startswith(("/api", "/health", "/stream"))
    ]


HTML = {"Accept": "text/html"}
PLACES = ("/", "/jobs/job", "/failures", "/operations", "/workers", "/migration", "/audit", "/doctor")


def set_error(shop: Desk, error: str) -> None:
    with shop.engine.begin() as db:
        db.execute(text("UPDATE tracking.job_tracking SET error_message = :error"), {"error": error})


def page(browse: Browser, path: str, token: str | None = None) -> str:
    answer = browse("GET", path, token, headers=HTML)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.parametrize("path", PLACES)
def test_a_page_of_an_empty_installation_says_that_it_is_empty(
    browse: Browser, viewer: str, path: str
) -> None:
    shown = page(browse, path, viewer)

    assert "<h1>" in shown
    assert ("empty" in shown) == (path not in {"/", "/audit", "/doctor"})
    assert (
        re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|https?://(?!www\.w3\.org)", shown)
        is None
    )


@pytest.mark.parametrize("path", [*PLACES, "/jobs/job/1", "/stream"])
def test_whoever_is_not_logged_in_is_led_to_the_form(browse: Browser, path: str) -> None:
    answer = browse("GET", path, headers=HTML)

    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={quote(path, safe='')}")


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/jobs/job?status=FAILED&error=a+b", "/jobs/job?status=FAILED&error=a+b"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/a\nb", "/"),
        ("", "/"),
    ],
)
def test_whoever_logs_in_comes_back_to_the_page_they_wanted_and_never_to_another_site(
    browse: Browser, viewer: str, wanted: str, place: str
) -> None:
    form = {"token": viewer, "csrf_token": form_token(browse("GET", "/login").text), "next": wanted}

    assert browse("POST", "/login", data=form).headers["location"] == place


def test_what_rows_hold_is_shown_and_does_nothing(browse: Browser, shop: Desk, viewer: str) -> None:
    row = shop.job.enqueue(payload="<img src=x onerror=alert(1)>")
    shop.fail(row)
    set_error(shop, "ValueError: <script>alert(1)</script> \x07\u202egnp password=hunter2")
    paths = ("/jobs/job", f"/jobs/job/{row.id}", "/failures")
    shown = [page(browse, path, viewer) for path in paths]

    assert not any(
        part in one for one in shown for part in ("<script>alert", "<img", "hunter2", "\u202e", "\x07")
    )
    assert all("&lt;script&gt;alert" in one and "password=[masked]" in one for one in shown)
    assert "\\x07\\u202egnp" in shown[1]


def test_a_secret_whose_digits_are_folded_is_masked_too(browse: Browser, shop: Desk, viewer: str) -> None:
    shop.fail(shop.job.enqueue())
    set_error(shop, "OSError: postgresql://me:hunter2@db.example refused")

    assert "postgresql://me:[masked]@db.example refused" in page(browse, "/failures", viewer)


def test_a_job_shows_its_attempts_inputs_and_what_can_be_done(
    browse: Browser, shop: Desk, viewer: str, operator: str
) -> None:
    failed, waiting = shop.order.enqueue(**shop.order_fields()), shop.order.enqueue(**shop.order_fields())
    shop.fail(failed)
    path = f"/jobs/order/{failed.id}"
    log_in(browse, operator)
    shown, of_waiting = page(browse, path), page(browse, f"/jobs/order/{waiting.id}")

    assert "attempt 1: error" in shown
    assert "ValueError: no" in shown
    assert "EUR" in shown
    assert f'action="{path}/retry"' in shown
    assert "/cancel" not in shown
    assert f'href="/jobs/order/{waiting.id}/cancel"' in of_waiting
    browse.client.cookies.clear()
    assert "/retry" not in page(browse, path, viewer)


def test_a_job_is_retried_and_cancelled_by_forms_of_the_session(
    browse: Browser, shop: Desk, operator: str
) -> None:
    row = shop.job.enqueue()
    shop.fail(row)
    log_in(browse, operator)
    path = f"/jobs/job/{row.id}"
    shown = form_token(page(browse, path))
    refused = browse("POST", f"{path}/retry", data={"csrf_token": "x"}, headers=HTML)
    retried = browse("POST", f"{path}/retry", data={"csrf_token": shown})
    states = [shop.status(row)]
    asked = page(browse, f"{path}/cancel")
    cancelled = browse("POST", f"{path}/cancel", data={"csrf_token": shown, "reason": "enough"})
    states.append(shop.status(row))

    assert (refused.status_code, refused.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert (retried.status_code, retried.headers["location"]) == (303, path)
    assert "<b>1</b> job" in asked
    assert cancelled.status_code == 303
    assert states == [Status.PENDING, Status.CANCELLED]


def test_a_viewer_may_not_even_ask_to_cancel(browse: Browser, shop: Desk, viewer: str) -> None:
    row = shop.job.enqueue()
    log_in(browse, viewer)
    answers = [
        browse("GET", f"/jobs/job{path}", headers=HTML)
        for path in (f"/{row.id}/cancel", "/confirm?do=cancel-all")
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert "may only look on" in answers[0].text


def test_a_form_leads_to_a_url_without_what_was_left_empty(browse: Browser, viewer: str) -> None:
    answer = browse("GET", "/jobs/job?status=FAILED&error=&created_from=2026-01-31T12:00&worker=+", viewer)

    assert answer.status_code == 303
    assert answer.headers["location"] == "/jobs/job?status=FAILED&created_from=2026-01-31T12%3A00%3A00Z"
    assert browse("GET", answer.headers["location"], viewer).status_code == 200


def test_the_list_follows_its_filter_from_page_to_page(browse: Browser, shop: Desk, viewer: str) -> None:
    shop.job.enqueue_many([{"payload": f"p{number}"} for number in range(60)])
    first = page(browse, "/jobs/job?status=PENDING", viewer)
    found = re.search(r'href="([^"]*after=[^"]*)"', first)
    assert found is not None
    second = page(browse, found[1].replace("&amp;", "&"), viewer)

    assert "<b>60</b> jobs match" in first
    assert [shown.count('data-label="state"') for shown in (first, second)] == [50, 10]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/jobs/nothing", 404, "nothing"),
        ("/jobs/job/4711", 404, "4711"),
        ("/jobs/job?status=RED", 422, "status"),
        ("/jobs/job?colour=red", 400, "colour"),
        ("/operations/4711", 404, "4711"),
        ("/?period=1y", 422, "period"),
        ("/nowhere", 404, "Not Found"),
    ],
)
def test_what_cannot_be_shown_is_explained_on_a_page(
    browse: Browser, viewer: str, path: str, status: int, words: str
) -> None:
    answer = browse("GET", path, viewer, headers=HTML)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert words in answer.text


def test_all_links_of_a_mounted_dashboard_stay_below_its_prefix(
    portal: BlockingPortal, shop: Desk, serve: Callable[..., FastAPI], operator: str
) -> None:
    row = shop.job.enqueue()
    outer = FastAPI()
    outer.mount("/a/b", serve())
    browse = Browser(portal, outer)
    shown = "".join(
        page(browse, f"/a/b{path}", operator) for path in ("/", "/jobs/job", f"/jobs/job/{row.id}")
    )
    links = set(re.findall(r'(?:href|src|action|data-live)="([^"#]*)"', shown))

    assert len(links) > 15
    assert {link for link in links if not link.startswith("/a/b/")} == set()


NASTY = (
    "?status=&status=RED",
    "?period=%00",
    "?after=AAAA&before=0",
    "?before=99999999999999999999",
    "?field.payload=%27%20OR%201=1--",
    "?error=" + "%25" * 60,
    "?do=drop-all",
    "?" + "&".join(f"ids={number}" for number in range(1, 300)),
    "?table=%2e%2e%2f&key=%ff",
    "?group=" + "f" * 33,
    "?created_from=0000-00-00T00:00",
    "?next=javascript:alert(1)",
)


def test_no_page_crashes_or_repeats_what_it_was_asked_as_markup(
    browse: Browser, operator: str, all_pages: list[str]
) -> None:
    assert len(all_pages) > 12
    for path in all_pages:
        for query in (*NASTY, "?error=<script>alert(1)</script>"):
            answer = browse("GET", path + query, operator, headers=HTML)

            assert (path, query, answer.status_code < 500) == (path, query, True)
            assert "<script>alert" not in answer.text


def test_an_open_dashboard_says_so_and_offers_nothing_to_write(
    portal: BlockingPortal, shop: Desk, serve: Callable[..., FastAPI]
) -> None:
    row = shop.job.enqueue()
    shop.fail(row)
    browse = Browser(portal, serve(is_open=True))
    shown = [page(browse, path) for path in ("/", "/jobs/job", f"/jobs/job/{row.id}", "/failures")]
    written = browse("POST", f"/jobs/job/{row.id}/retry", headers=HTML)

    assert all("open to this machine" in one and 'method="post"' not in one for one in shown)
    assert written.status_code == 403
    assert shop.status(row) is Status.FAILED
