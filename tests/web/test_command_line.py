"""``tasktrail tokens`` and ``tasktrail serve``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from click.testing import Result
from fastapi import FastAPI
from typer.testing import CliRunner

from tasktrail.cli.app import app
from tasktrail.errors import ConfigurationError, InvalidField
from tests.desk import Desk
from tests.migration.legacy import PLAN
from tests.web.conftest import Browser

Run = Callable[..., Result]


@pytest.fixture
def run(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the tasks of the desk."""
    monkeypatch.setattr("tasktrail.cli.app.load_trail", lambda _: shop.trail)
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[FastAPI, dict[str, Any]]]:
    """What would be served."""
    found: list[tuple[FastAPI, dict[str, Any]]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: found.append((app, options)))
    return found


def test_a_token_is_made_listed_used_and_ended(run: Run, browse: Browser) -> None:
    made = run("tokens", "create", "nora", "--role", "operator", "--expires-in", "90d")
    token = made.output.strip()
    opens = browse("GET", "/api/domains", token).status_code
    (listed,) = json.loads(run("tokens", "list", "--json").output)
    shown = run("tokens", "list").output
    ended = run("tokens", "revoke", "nora")

    assert (made.exit_code, token[:3], opens) == (0, "tt_", 200)
    assert (listed["name"], listed["role"], listed["revoked_at"]) == ("nora", "operator", None)
    assert "nora" in shown
    assert token not in shown + json.dumps(listed)
    assert ended.output == "nora: revoked\n"
    assert browse("GET", "/api/domains", token).status_code == 401


def test_what_was_done_with_a_token_is_told_as_json(run: Run, browse: Browser) -> None:
    made = json.loads(run("tokens", "create", "nora", "--json").output)
    opens = browse("GET", "/api/domains", made["token"]).status_code
    ended = json.loads(run("tokens", "revoke", "nora", "--json").output)

    assert (made["name"], made["role"], opens) == ("nora", "viewer", 200)
    assert ended == {"name": "nora", "revoked": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", ""), "name"),
        (("create", "x" * 101), "name"),
        (("create", "nora", "--expires-in", "soon"), "--expires-in"),
        (("revoke", "nobody"), "no token in use"),
    ],
)
def test_what_cannot_be_done_with_tokens_is_refused_by_name(
    run: Run, words: tuple[str, ...], said: str
) -> None:
    refused = run("tokens", *words)

    assert refused.exit_code != 0
    assert isinstance(refused.exception, InvalidField)
    assert said in str(refused.exception)


def test_it_is_served_on_this_machine_with_a_plan_if_one_is_named(
    run: Run, served: list[tuple[FastAPI, dict[str, Any]]]
) -> None:
    plain = run("serve")
    planned = run("serve", "--port", "9000", "--plan", "tests.migration.legacy:PLAN")

    assert (plain.exit_code, planned.exit_code) == (0, 0)
    assert [
        (app.state.is_open, app.state.plan, options["host"], options["port"]) for app, options in served
    ] == [
        (False, None, "127.0.0.1", 8080),
        (False, PLAN, "127.0.0.1", 9000),
    ]


def test_to_be_open_is_said_loudly_and_for_this_machine_only(
    run: Run, served: list[tuple[FastAPI, dict[str, Any]]]
) -> None:
    refused = run("serve", "--open", "--host", "0.0.0.0")
    opened = run("serve", "--open")

    assert isinstance(refused.exception, ConfigurationError)
    assert "loopback" in str(refused.exception)
    assert "WARNING" in opened.output
    assert [app.state.is_open for app, _ in served] == [True]
