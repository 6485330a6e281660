"""Statistics, failures, workers, operations and the doctor over HTTP: the same numbers as everywhere."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from tasktrail.cli.app import app
from tasktrail.fingerprints import group_of
from tasktrail.monitoring import queries
from tests.desk import Desk
from tests.waiting import until
from tests.web.conftest import Browser


def test_page_api_command_line_metrics_and_read_model_say_the_same_numbers(
    browse: Browser, shop: Desk, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [shop.job.enqueue() for _ in range(5)]
    shop.complete(*rows[:2])
    shop.fail(rows[2])
    shop.claim(rows[3])
    found = browse("GET", "/api/domains/job/statistics?period=1h", viewer).json()
    of_all = browse("GET", "/api/statistics?period=1h", viewer).json()
    page = browse("GET", "/?period=1h", viewer).text
    with shop.engine.connect() as db:
        counts = queries.counts(db, shop.trail.registry.get("job"))
    of_job = page[: page.index("async_job")]
    on_page = dict(re.findall(r'class="([a-z]+)[^"]*"><b>([0-9,]+)</b> <span>', of_job))

    monkeypatch.setattr("tasktrail.cli.app.load_trail", lambda _: shop.trail)
    (on_terminal,) = json.loads(CliRunner().invoke(app, ["status", "job", "--json"]).output)

    answer = browse("GET", "/metrics", viewer)
    metric = re.compile(r'^tasktrail_jobs\{domain="job",state="([A-Z]+)"\} ([0-9.]+)$', re.MULTILINE)
    in_metrics = {name.lower(): float(value) for name, value in metric.findall(answer.text)}

    states = ("pending", "processing", "completed", "failed", "cancelled")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert [in_metrics[name] for name in states] == [1, 1, 2, 1, 0]
    assert [found["counts"][name] for name in states] == [1, 1, 2, 1, 0]
    assert [found["counts"][name] for name in states] == [getattr(counts, name) for name in states]
    assert [int(on_page[name]) for name in states] == [1, 1, 2, 1, 0]
    assert [on_terminal[name] for name in states] == [1, 1, 2, 1, 0]
    assert found["counts"]["total"] == 5
    assert (found["history"]["completed"], found["history"]["failed"]) == (2, 1)
    assert found["history"]["success_rate"] == 2 / 3
    assert len(found["history"]["bars"]) in {60, 61}
    assert [one["domain"] for one in of_all["domains"]] == ["job", "async_job", "order"]


def test_failures_are_grouped_and_masked(browse: Browser, shop: Desk, viewer: str) -> None:
    shop.fail(shop.job.enqueue(), shop.job.enqueue())
    found = browse("GET", "/api/domains/job/failures?period=1h", viewer).json()

    assert (found["rows"], found["more_groups"]) == (2, 0)
    assert [(one["rows"], one["fingerprint"], one["group"]) for one in found["groups"]] == [
        (2, "ValueError: no", group_of("ValueError: no"))
    ]
    assert sum(found["groups"][0]["bars"]) == 2


def test_workers_say_what_they_do(browse: Browser, shop: Desk, viewer: str) -> None:
    done, running = shop.job.enqueue(), shop.job.enqueue()
    shop.complete(done)
    shop.claim(running)

    assert [
        (one["worker"], one["processing"], one["completed"], one["domains"])
        for one in browse("GET", "/api/workers", viewer).json()
    ] == [("w1", 1, 1, ["job"])]


def test_an_operation_is_previewed_begun_seen_and_cannot_be_stopped_when_it_has_ended(
    browse: Browser, shop: Desk, operator: str
) -> None:
    shop.fail(*[shop.job.enqueue() for _ in range(3)])
    path = "/api/domains/job/operations"
    preview = browse("GET", f"{path}/preview?action=retry&status=FAILED", operator).json()
    too_many = browse("POST", f"{path}?status=FAILED", operator, json={"action": "retry", "at_most": 2})
    begun = browse("POST", f"{path}?status=FAILED", operator, json={"action": "retry", "at_most": 3})
    number = begun.json()["id"]
    seen = until(
        lambda: (
            found
            if (found := browse("GET", f"/api/operations/{number}", operator).json())["state"] != "running"
            else None
        )
    )

    assert preview == {"count": 3, "is_more": False}
    assert (too_many.status_code, begun.status_code) == (409, 202)
    assert (seen["state"], seen["done"], seen["filter"]) == ("completed", 3, {"status": ["FAILED"]})
    assert browse("POST", f"/api/operations/{number}/stop", operator).status_code == 409
    assert browse("POST", "/api/operations/4711/stop", operator).status_code == 404
    assert [one["id"] for one in browse("GET", "/api/operations", operator).json()] == [number]


def test_the_doctor_says_over_http_what_is_wrong(browse: Browser, viewer: str) -> None:
    found = browse("GET", "/api/doctor", viewer).json()

    assert ("fsync", "error") in {(one["subject"], one["severity"]) for one in found}


def test_without_a_plan_there_is_no_migration(browse: Browser, viewer: str) -> None:
    answers = [browse("GET", f"/api/migration{path}", viewer) for path in ("", "/drift", "/account")]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
