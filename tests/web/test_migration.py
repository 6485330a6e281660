"""The migration on its page and over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from sqlalchemy import text

from tasktrail.migration.backfill import Backfill
from tasktrail.migration.workspace import Workspace
from tests.desk import Desk
from tests.migration.conftest import start_syncing
from tests.migration.legacy import PLAN, create_legacy
from tests.support import SCHEMA, JobTracking, OrderTracking
from tests.web.conftest import Browser
from tests.web.test_access import form_token, log_in
from tests.web.test_pages import HTML, page

DRIFT = """
INSERT INTO tracking.tasktrail_drift
    (migration, table_name, found_by, row_key, what, column_name, expected, found)
VALUES ('shop', 'old_orders', 'twin', '1', 'different', 'currency', 'EUR', 'USD'),
    ('shop', 'old_orders', 'twin', '1', 'different', 'status', 'FAILED', 'PENDING')
"""


@pytest.fixture
def migrating(portal: BlockingPortal, shop: Desk, serve: Callable[..., FastAPI]) -> Browser:
    """The application with a migration whose rows are copied."""
    create_legacy(shop.engine)
    workspace = Workspace(PLAN, shop.trail.engines, SCHEMA)
    with workspace.session("test") as db:
        start_syncing(workspace, db)
        Backfill(workspace, error_budget=None).run(db)
    return Browser(portal, serve(plan=PLAN))


def test_the_page_says_where_every_legacy_row_is(migrating: Browser, viewer: str) -> None:
    shown = page(migrating, "/migration", viewer)
    seen = migrating("GET", "/api/migration", viewer).json()
    account = migrating("GET", "/api/migration/account", viewer).json()
    drift = migrating("GET", "/api/migration/drift", viewer).json()

    assert '<li aria-current="step">backfilled</li>' in shown
    assert "balanced" in shown
    assert "Re-drive" not in shown
    assert (seen["phase"], seen["next"]) == ("backfilled", "tasktrail migrate verify")
    assert {table["table"] for table in seen["tables"]} == {table.name for table in PLAN.tables}
    assert account["is_balanced"] is True
    assert sum(line["rows"] for line in account["lines"] if line["fate"] == "quarantined") == sum(
        heap["rows"] for heap in seen["quarantine"]
    )
    assert drift == {"open": [], "passes": []}


def test_a_quarantined_row_is_shown_as_it_was(migrating: Browser, viewer: str) -> None:
    heap = migrating("GET", "/api/migration", viewer).json()["quarantine"][0]
    shown = page(migrating, f"/migration/row?table={heap['table']}&key={heap['example']}", viewer)
    missing = migrating("GET", f"/migration/row?table={heap['table']}&key=4711", viewer, headers=HTML)

    assert heap["reason"] in shown
    assert "quarantined" in shown
    assert missing.status_code == 404


def test_what_is_declared_sensitive_is_shown_to_nobody(
    migrating: Browser, viewer: str, shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop.engine.begin() as db:
        db.execute(text(DRIFT))
    heap = migrating("GET", "/api/migration", viewer).json()["quarantine"][0]
    row = f"/migration/row?table={heap['table']}&key={heap['example']}"
    openly = migrating("GET", "/api/migration/drift", viewer).json()["open"]
    raw = page(migrating, row, viewer)
    for model in (JobTracking, OrderTracking):
        options = replace(model.__tracking__, sensitive=("payload", "currency"))
        monkeypatch.setattr(model, "__tracking__", options)
    hidden = migrating("GET", "/api/migration/drift", viewer).json()["open"]
    shown = page(migrating, row, viewer)

    assert {one["column"]: (one["expected"], one["found"]) for one in openly} == {
        "currency": ("EUR", "USD"),
        "status": ("FAILED", "PENDING"),
    }
    assert {one["column"]: (one["expected"], one["found"]) for one in hidden} == {
        "currency": ("[masked]", "[masked]"),
        "status": ("FAILED", "PENDING"),
    }
    assert "[masked]" in shown
    assert "[masked]" not in raw


def test_quarantined_rows_are_driven_again_by_an_operator_and_that_is_audited(
    migrating: Browser, shop: Desk, operator: str
) -> None:
    log_in(migrating, operator)
    shown = page(migrating, "/migration")
    heap = migrating("GET", "/api/migration", operator).json()["quarantine"][0]
    form = {"csrf_token": form_token(shown), "table": heap["table"], "reason": heap["reason"]}
    driven = migrating("POST", "/migration/redrive", data=form)
    unknown = migrating("POST", "/migration/redrive", data={**form, "table": "nothing"})
    with shop.engine.connect() as db:
        query = text("SELECT who, what, count FROM tracking.tasktrail_audit ORDER BY id DESC LIMIT 1")
        entry = tuple(db.execute(query).one())

    assert "Re-drive" in shown
    assert (driven.status_code, unknown.status_code) == (303, 404)
    assert entry == ("otto", "redrive", heap["rows"])
