"""The API of rows: what comes back, what is written, and how bad input is answered."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tasktrail import Status
from tests.desk import Desk
from tests.web.conftest import Browser


def last_entry(shop: Desk) -> tuple[object, ...]:
    with shop.engine.connect() as db:
        query = text("SELECT who, what, domain, tracking_id FROM tracking.tasktrail_audit ORDER BY id DESC")
        return tuple(db.execute(query).first() or ())


def count_jobs(shop: Desk) -> int:
    with shop.engine.connect() as db:
        return int(db.scalar(text("SELECT count(*) FROM tracking.job_tracking")) or 0)


def test_a_job_is_created_retried_and_cancelled_and_each_is_audited(
    browse: Browser, shop: Desk, operator: str
) -> None:
    created = browse("POST", "/api/domains/job/jobs", operator, json={"fields": {"payload": "x"}}).json()
    path = f"/api/domains/job/jobs/{created['id']}"
    entries = [last_entry(shop)]
    cancelled = browse("POST", f"{path}/cancel", operator, json={"reason": "not now"})
    entries.append(last_entry(shop))
    retried = browse("POST", f"{path}/retry", operator)
    entries.append(last_entry(shop))
    seen = browse("GET", path, operator).json()["job"]

    assert (created["status"], created["outcome"]) == ("PENDING", "created")
    assert (cancelled.status_code, retried.status_code) == (204, 200)
    assert entries == [("otto", what, "job", created["id"]) for what in ("create", "cancel", "retry")]
    assert (seen["status"], seen["fields"]) == ("PENDING", {"payload": "x"})
    assert shop.sent_ids() == [created["id"]] * 2


def test_an_order_is_created_once(browse: Browser, shop: Desk, operator: str) -> None:
    fields = {"day": "2026-01-31", "currency": "EUR", "amount": "1.50", "seen_at": "2026-01-31T12:00:00Z"}
    answers = [browse("POST", "/api/domains/order/jobs", operator, json={"fields": fields}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 200]
    assert [answer.json()["outcome"] for answer in answers] == ["created", "existing"]


def test_what_only_the_database_can_refuse_is_a_problem_of_the_request(
    browse: Browser, shop: Desk, operator: str, caplog: pytest.LogCaptureFixture
) -> None:
    with shop.engine.begin() as db:
        db.execute(
            text("ALTER TABLE tracking.job_tracking ADD CONSTRAINT ck_short CHECK (payload <> 'xyzzy')")
        )
    answer = browse("POST", "/api/domains/job/jobs", operator, json={"fields": {"payload": "xyzzy"}})

    assert (answer.status_code, answer.json()["field"]) == (422, "ck_short")
    assert "xyzzy" not in caplog.text
    assert count_jobs(shop) == 0


def test_a_reason_with_a_character_that_cannot_be_stored_is_stored_without_it(
    browse: Browser, shop: Desk, operator: str
) -> None:
    rows = [shop.job.enqueue() for _ in range(2)]
    cancelled = browse(
        "POST", f"/api/domains/job/jobs/{rows[0].id}/cancel", operator, json={"reason": "a\x00b"}
    )
    begun = browse(
        "POST", "/api/domains/job/operations", operator, json={"action": "cancel", "reason": "a\x00b"}
    )

    assert (cancelled.status_code, begun.status_code) == (204, 202)
    assert begun.json()["reason"] == "a\ufffdb"


def test_a_secret_that_an_operator_wrote_is_masked_in_the_audit_and_in_the_operation(
    browse: Browser, shop: Desk, operator: str
) -> None:
    row = shop.job.enqueue()
    said = "again with password=hunter2"
    browse("POST", f"/api/domains/job/jobs/{row.id}/cancel", operator, json={"reason": said})
    begun = browse(
        "POST",
        "/api/domains/job/operations",
        operator,
        params={"error": "password=hunter2"},
        json={"action": "cancel", "reason": said},
    ).json()
    seen = [browse("GET", path, operator).text for path in ("/api/audit", f"/api/operations/{begun['id']}")]

    assert "password=[masked]" in begun["reason"]
    assert begun["filter"] == {"error": ["password=[masked]"]}
    assert "hunter2" not in "".join(seen)


def test_a_refused_write_leaves_no_line_in_the_audit(browse: Browser, shop: Desk, operator: str) -> None:
    row = shop.job.enqueue()
    before = last_entry(shop)
    answer = browse("POST", f"/api/domains/job/jobs/{row.id}/retry", operator)

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert last_entry(shop) == before


def test_pages_follow_each_other_and_count(browse: Browser, shop: Desk, viewer: str) -> None:
    shop.job.enqueue_many([{"payload": str(number)} for number in range(5)])
    first = browse("GET", "/api/domains/job/jobs?limit=3", viewer).json()
    second = browse("GET", f"/api/domains/job/jobs?limit=3&page={first['next']}", viewer).json()

    assert [job["fields"]["payload"] for job in first["jobs"] + second["jobs"]] == ["4", "3", "2", "1", "0"]
    assert first["count"] == {"count": 5, "is_more": False}
    assert second["next"] is None


def test_rows_are_chosen_by_state_and_by_a_domain_column(browse: Browser, shop: Desk, viewer: str) -> None:
    failed, other = shop.job.enqueue(payload="a"), shop.job.enqueue(payload="b")
    shop.fail(failed)
    by_state = browse("GET", "/api/domains/job/jobs?status=FAILED&status=CANCELLED", viewer).json()
    by_field = browse("GET", "/api/domains/job/jobs?field.payload=b", viewer).json()

    assert [job["id"] for job in by_state["jobs"]] == [failed.id]
    assert [job["id"] for job in by_field["jobs"]] == [other.id]


def test_secrets_in_errors_are_masked_in_lists_and_details(browse: Browser, shop: Desk, viewer: str) -> None:
    row = shop.job.enqueue()
    with shop.engine.begin() as db:
        error = "OSError: postgresql://me:hunter2@db refused"
        db.execute(text("UPDATE tracking.job_tracking SET error_message = :error"), {"error": error})
    answers = [browse("GET", f"/api/domains/job/jobs{path}", viewer).text for path in ("", f"/{row.id}")]

    assert all("me:[masked]@db" in answer and "hunter2" not in answer for answer in answers)


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("colour=red", 400, "colour"),
        ("status=RED", 422, "status"),
        ("field.colour=red", 422, "colour"),
        ("created_from=yesterday", 422, "created_from"),
        ("created_from=0001-01-01T00:00:00Z", 422, "created_from"),
        ("created_from=9999-12-31T23:59:59%2B00:00", 422, "created_from"),
        ("attempts_from=99999999999999999999", 422, "attempts_from"),
        ("error=%00", 400, "control"),
        ("error=a%0ab", 400, "control"),
        ("error=%ff", 400, "UTF-8"),
        ("page=tampered", 422, "page"),
        ("limit=201", 422, "limit"),
        ("error=" + "x" * 9000, 414, "8,192"),
    ],
)
def test_a_bad_query_is_a_problem_that_names_it(
    browse: Browser, viewer: str, query: str, status: int, word: str
) -> None:
    answer = browse("GET", f"/api/domains/job/jobs?{query}", viewer)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


@pytest.mark.parametrize("query", ["", "&status=FAILED"])
def test_a_page_that_was_tampered_with_is_refused(
    browse: Browser, shop: Desk, viewer: str, query: str
) -> None:
    shop.job.enqueue_many([{"payload": "x"}] * 3)
    token = browse("GET", "/api/domains/job/jobs?limit=1", viewer).json()["next"]
    changed = token if query else token[:-2] + ("AA" if token[-2:] != "AA" else "BB")

    assert browse("GET", f"/api/domains/job/jobs?limit=1&page={changed}{query}", viewer).status_code == 422


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/domains/nothing/jobs", 404),
        ("/api/domains/job/jobs/4711", 404),
        ("/api/domains/job/jobs/0", 422),
        (f"/api/domains/job/jobs/{2**63}", 422),
        ("/api/domains/job/jobs/%00", 400),
        ("/api/nowhere", 404),
    ],
)
def test_what_is_not_there_is_a_problem(browse: Browser, viewer: str, path: str, status: int) -> None:
    answer = browse("GET", path, viewer)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_method_that_is_not_there_is_a_problem(browse: Browser, viewer: str) -> None:
    answer = browse("DELETE", "/api/domains", viewer)

    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")


@pytest.mark.parametrize(
    "body",
    [
        {"fields": {"colour": "red"}},
        {"fields": {"payload": "x" * 101}},
        {"fields": {"payload": "\x00"}},
        {"fields": {"payload": 7}},
        {"fields": {"status": "FAILED"}},
        {"fields": {}, "colour": 1},
        {"max_attempts": 0},
        {"after": [{"domain": "job", "id": 2**63}]},
        {"after": [{"domain": "job", "id": 4711}]},
    ],
)
def test_a_bad_body_adds_nothing(browse: Browser, shop: Desk, operator: str, body: object) -> None:
    answer = browse("POST", "/api/domains/job/jobs", operator, json=body)

    assert answer.status_code in {404, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert count_jobs(shop) == 0


def test_a_body_that_is_too_large_is_refused(browse: Browser, shop: Desk, operator: str) -> None:
    answer = browse("POST", "/api/domains/job/jobs", operator, content=b" " * (2 << 20))

    assert answer.status_code == 413


def test_a_crash_is_a_problem_that_says_nothing(
    browse: Browser, shop: Desk, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasktrail.monitoring import queries

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(queries, "page", crash)
    answer = browse("GET", "/api/domains/job/jobs", viewer)

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text


def test_it_is_ready_only_with_the_schema_of_this_release(browse: Browser, shop: Desk) -> None:
    before = browse("GET", "/health/ready").status_code
    with shop.engine.begin() as db:
        db.execute(text("DELETE FROM tracking.tasktrail_version"))

    assert (before, browse("GET", "/health/ready").status_code) == (200, 503)
    assert browse("GET", "/health/live").status_code == 200


def test_the_description_says_that_any_request_may_be_answered_by_a_problem(
    browse: Browser, viewer: str
) -> None:
    document = browse("GET", "/api/openapi.json", viewer).json()
    operations = [one for path in document["paths"].values() for one in path.values()]

    assert len(operations) >= 8
    assert all("application/problem+json" in one["responses"]["422"]["content"] for one in operations)


def test_a_viewer_sees_who_did_what(browse: Browser, shop: Desk, viewer: str, operator: str) -> None:
    row = shop.job.enqueue()
    browse("POST", f"/api/domains/job/jobs/{row.id}/cancel", operator, json={"reason": "late"})
    newest = browse("GET", "/api/audit?limit=1", viewer).json()

    assert [(one["who"], one["what"], one["details"]) for one in newest] == [
        ("otto", "cancel", {"reason": "late"})
    ]
    assert shop.status(row) is Status.CANCELLED


def test_a_secret_in_an_error_cannot_be_found_out_by_searching(
    browse: Browser, shop: Desk, viewer: str
) -> None:
    shop.job.enqueue()
    with shop.engine.begin() as db:
        error = "OSError: postgresql://me:hunter2@db refused"
        db.execute(text("UPDATE tracking.job_tracking SET error_message = :error"), {"error": error})

    def found(part: str) -> int:
        return browse("GET", f"/api/domains/job/jobs?error={part}", viewer).json()["count"]["count"]

    assert [found(part) for part in ("me:", "REFUSED", "@db refused")] == [1, 1, 1]
    assert [found(part) for part in ("h", "me:h", "hunter2", "2@db", "[masked]", "%")] == [0, 0, 0, 0, 0, 0]
