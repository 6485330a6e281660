"""What people do on the dashboard, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import text

from tasktrail import Status
from tasktrail.celery import Enqueued
from tests.browser.conftest import Place, Visit

Visiting = Callable[..., Visit]
SIZES = ({"width": 1280, "height": 800}, {"width": 360, "height": 740})
PAGES = ("/", "/jobs/job", "/failures", "/operations", "/workers", "/migration", "/audit", "/doctor")


def fail(place: Place, count: int, error: str = "TimeoutError: took 30 s") -> list[Enqueued]:
    rows = [place.shop.job.enqueue(payload=f"p{number}") for number in range(count)]
    place.shop.fail(*rows)
    with place.shop.engine.begin() as db:
        db.execute(text("UPDATE tracking.job_tracking SET error_message = :error"), {"error": error})
    return rows


def test_somebody_logs_in_filters_opens_a_job_and_logs_out(visit: Visiting, place: Place) -> None:
    failed, *_ = fail(place, 1)
    place.shop.job.enqueue(payload="waits")
    page = visit().log_in("vera")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("link", name="job", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="jobs")).to_have_text("2 jobs")
    page.get_by_role("checkbox", name="failed").check()
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("1 job matches")).to_be_visible()
    page.get_by_role("link", name=str(failed.id), exact=True).click()
    expect(page.get_by_role("heading", name=f"job {failed.id}")).to_be_visible()
    expect(page.get_by_text("attempt 1: error")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.goto(f"{place.url}/jobs/job")
    expect(page.get_by_label("Token")).to_be_visible()


def test_a_failed_group_is_retried_and_seen_to_complete_live(visit: Visiting, place: Place) -> None:
    rows = fail(place, 3)
    page = visit().log_in("otto")
    page.get_by_role("link", name="Failures", exact=True).click()
    page.get_by_role("link", name="Retry this group…").click()
    page.get_by_label("How fast").select_option("as fast as possible")
    page.get_by_role("button", name="Yes, retry 3 jobs").click()
    expect(page.get_by_text("3 of 3 jobs started again")).to_be_visible()
    page.get_by_role("link", name="Show the jobs").click()
    page.goto(f"{place.url}/jobs/job?status=COMPLETED")
    expect(page.get_by_text("No job matches this filter")).to_be_visible()
    expect(page.locator("#live")).to_have_text("live")
    place.shop.complete(*rows)

    expect(page.get_by_text("3 jobs match")).to_be_visible()
    assert {place.shop.status(row) for row in rows} == {Status.COMPLETED}


def test_a_running_job_is_cancelled(visit: Visiting, place: Place) -> None:
    row = place.shop.job.enqueue()
    place.shop.claim(row)
    page = visit().log_in("otto")
    page.goto(f"{place.url}/jobs/job/{row.id}")
    page.get_by_role("link", name="Cancel…").click()
    expect(page.get_by_text("1 job, processing, will be cancelled")).to_be_visible()
    page.get_by_label("Why").fill("not needed any more")
    page.get_by_role("button", name="Yes, cancel 1 job").click()

    expect(page.get_by_role("heading", name=f"job {row.id} cancelled")).to_be_visible()
    expect(page.get_by_text("not needed any more").first).to_be_visible()
    assert place.shop.status(row) is Status.CANCELLED


def test_selected_jobs_stay_selected_while_the_page_is_refreshed_and_only_they_are_cancelled(
    visit: Visiting, place: Place
) -> None:
    rows = [place.shop.job.enqueue() for _ in range(3)]
    page = visit().log_in("otto")
    page.goto(f"{place.url}/jobs/job")
    page.get_by_label(f"Select job {rows[1].id}").check()
    expect(page.locator("#live")).to_have_text("live")
    place.shop.job.enqueue()
    expect(page.get_by_text("4 jobs")).to_be_visible()
    page.get_by_role("button", name="Cancel selected (1)").click()
    page.get_by_role("button", name="Yes, cancel 1 job").click()

    expect(page.get_by_text("1 of 1 job cancelled")).to_be_visible()
    assert [place.shop.status(row) for row in rows] == [Status.PENDING, Status.CANCELLED, Status.PENDING]


def test_buttons_say_how_many_are_selected_however_often_the_page_is_refreshed(
    visit: Visiting, place: Place
) -> None:
    failed, *_ = fail(place, 1)
    page = visit().log_in("otto")
    page.goto(f"{place.url}/jobs/job?status=FAILED")
    button = page.locator("button[value=retry-selected]")
    words = button.text_content()
    page.get_by_label(f"Select job {failed.id}").check()
    for _ in range(3):  # what changes is in none of the rows that are shown
        with page.expect_response(lambda answer: "status=FAILED" in answer.url):
            place.shop.job.enqueue()

    expect(button).to_have_text(f"{words} (1)")
    page.get_by_label(f"Select job {failed.id}").uncheck()
    expect(button).to_have_text(words or "")
    expect(button).to_be_disabled()


def test_a_viewer_is_offered_nothing_and_refused(visit: Visiting, place: Place) -> None:
    row, *_ = fail(place, 1)
    visitor = visit()
    page = visitor.log_in("vera")
    for path in ("/jobs/job", f"/jobs/job/{row.id}", "/failures"):
        page.goto(place.url + path)
        expect(page.get_by_role("button", name="Retry")).to_have_count(0)
        expect(page.get_by_role("link", name="Retry")).to_have_count(0)
    answer = page.goto(f"{place.url}/jobs/job/confirm?do=retry-all")

    assert answer is not None
    assert answer.status == 403
    expect(page.get_by_role("alert")).to_contain_text("may only look on")
    visitor.troubles = [one for one in visitor.troubles if "403" not in one]  # which the browser notes itself


def test_a_form_of_another_session_is_refused(visit: Visiting, place: Place) -> None:
    row, *_ = fail(place, 1)
    visitor = visit()
    page = visitor.log_in("otto")
    page.goto(f"{place.url}/jobs/job/{row.id}")
    forget = "for (const one of document.getElementsByName('csrf_token')) one.value = 'x'"
    page.evaluate(forget)
    page.get_by_role("button", name="Retry").click()

    expect(page.get_by_role("alert")).to_contain_text("not of this session")
    assert place.shop.status(row) is Status.FAILED
    visitor.troubles = [one for one in visitor.troubles if "403" not in one]


def press(page: Page, key: str, until_focused: str) -> None:
    """Press a key until something is focused."""
    for _ in range(60):
        page.keyboard.press(key)
        if page.locator(until_focused).evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"{until_focused} was not reached")


def test_a_job_is_retried_with_the_keyboard_alone(visit: Visiting, place: Place) -> None:
    row, *_ = fail(place, 1)
    visitor = visit()
    page = visitor.go("/login")
    page.keyboard.type(place.tokens["otto"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    press(page, "Tab", ".skip")
    expect(page.locator(".skip")).to_be_in_viewport()
    press(page, "Tab", ".places a[href$='/jobs']")
    outline = page.locator(".places a[href$='/jobs']").evaluate("one => getComputedStyle(one).outlineStyle")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/job")
    press(page, "Tab", ".segments a[href$='/jobs/order']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/order")
    press(page, "Tab", ".segments a[href$='/jobs/job']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/job")
    press(page, "Tab", f".rows a[href$='/jobs/job/{row.id}']")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/jobs/job/{row.id}")
    press(page, "Tab", "button.primary")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", name=f"job {row.id} pending")).to_be_visible()
    assert outline == "solid"
    assert place.shop.status(row) is Status.PENDING


@pytest.mark.parametrize(("theme", "colour"), [("light", "rgb(245, 245, 242)"), ("dark", "rgb(18, 20, 25)")])
def test_no_page_is_wider_than_the_screen_of_a_desk_or_a_phone_in_either_theme(
    visit: Visiting, place: Place, theme: str, colour: str
) -> None:
    row, *_ = fail(place, 3, "ValueError: " + "x" * 300)
    page = visit(color_scheme=theme).log_in("otto")
    too_wide = []
    for path in (*PAGES, f"/jobs/job/{row.id}", "/jobs/job/confirm?do=retry-all"):
        page.goto(place.url + path)
        for size in SIZES:
            page.set_viewport_size(size)  # type: ignore[arg-type]
            if page.evaluate("document.documentElement.scrollWidth") > size["width"]:
                too_wide.append((path, size))
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    assert too_wide == []
    assert background == colour


def test_the_theme_can_be_switched_and_stays(visit: Visiting, place: Place) -> None:
    page = visit(color_scheme="dark").log_in("vera")
    page.get_by_role("button", name="Theme: system").click()
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.reload()

    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert light == page.evaluate("getComputedStyle(document.documentElement).backgroundColor")


def test_a_hidden_page_does_not_ask(visit: Visiting, place: Place) -> None:
    page = visit().log_in("vera")
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(page.locator("#live")).to_have_text("paused")
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")

    expect(page.locator("#live")).to_have_text("live")
