"""``tasktrail status``, ``list``, ``show``, ``failures``, ``stats``, ``watch``: what they say of rows."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tasktrail import DatabaseUnavailable, Status
from tasktrail.cli import watch
from tasktrail.cli.app import app
from tests.commands import run_here
from tests.rows import add_job, add_job_in, claim
from tests.support import SCHEMA

LAUNDRY = """
from celery import Celery
from tasktrail import Settings, Trail
from tests.support import SCHEMA, JobTrackingService

trail = Trail(Celery("laundry"), Settings.load(), schema=SCHEMA)
trail.task(JobTrackingService, name="laundry.job")(lambda run: None)
"""


@pytest.fixture(autouse=True)
def laundry(project_folder: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Iterator[None]:
    """An application in the working directory, on the fresh database."""
    (project_folder / "laundry.py").write_text(LAUNDRY, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("TASKTRAIL_APP", "laundry:trail")
    yield
    sys.modules.pop("laundry", None)


def told(*words: str) -> Any:
    """Return what a command says as JSON."""
    outcome = run_here(app, *words, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads(outcome.out)


def test_status_counts_the_rows_of_each_state(engine: Engine) -> None:
    for status in Status:
        add_job_in(engine, status)
    job = add_job(engine)
    (domain,) = told("status")

    assert [domain[status.value.lower()] for status in Status] == [2, 1, 1, 1, 1]
    assert domain["oldest_pending"]["id"] < job
    assert domain["stuck"] == {"count": 0, "is_more": False, "searched": None, "ids": []}


def test_status_prints_a_table_without_colour_and_without_cutting_it_when_piped(engine: Engine) -> None:
    add_job(engine)
    outcome = run_here(app, "status")

    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert [word for word in ("job", "pending", "oldest due", "overdue") if word not in outcome.out] == []


def test_list_gives_the_newest_rows_first_and_the_token_of_the_next_page(engine: Engine) -> None:
    jobs = [add_job_in(engine, Status.FAILED) for _ in range(3)]
    add_job(engine)
    first = told("list", "job", "--status", "FAILED", "--limit", "2")
    rest = told("list", "job", "--status", "FAILED", "--limit", "2", "--page", first["next"])

    assert [row["id"] for row in first["rows"]] == [jobs[2], jobs[1]]
    assert ([row["id"] for row in rest["rows"]], rest["next"], rest["count"]) == ([jobs[0]], None, 3)


def test_a_printed_list_says_how_many_rows_there_are_and_how_to_go_on(engine: Engine) -> None:
    jobs = [add_job(engine) for _ in range(3)]
    first = run_here(app, "list", "job", "--limit", "2").out
    rest = run_here(app, "list", "job", "--limit", "2", "--page", first.rpartition("add --page ")[2].strip())

    assert "2 of 3 rows" in first
    assert f" {jobs[0]} " not in first
    assert f" {jobs[0]} " in rest.out
    assert "--page" not in rest.out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("list", "nobody"), "nobody"),
        (("list", "job", "--page", "made-up"), "page"),
        (("list", "job", "--limit", "201"), "must be from 1 to 200"),
        (("list", "job", "--group", "x"), "group"),
        (("show", "job", "99"), "99"),
    ],
)
def test_bad_input_gets_one_clear_line(words: tuple[str, ...], complaint: str) -> None:
    assert run_here(app, *words).complains(complaint)


def test_show_tells_all_of_a_job_and_its_attempts(engine: Engine) -> None:
    job = add_job_in(engine, Status.FAILED)
    outcome = run_here(app, "show", "job", str(job))

    assert outcome.code == 0
    assert [
        word
        for word in (f"job {job}", "FAILED", "ValueError: no", "attempt", "ago")
        if word not in outcome.out
    ] == []
    assert told("show", "job", str(job))["log"][0]["outcome"] == "error"


@pytest.mark.parametrize("command", ["list", "show", "failures"])
def test_a_terminal_does_not_obey_the_text_of_an_error(engine: Engine, command: str) -> None:
    job = add_job_in(engine, Status.FAILED)
    with engine.begin() as db:
        query = text(f"UPDATE {SCHEMA}.job_tracking SET error_message = :said")
        db.execute(query, {"said": "\x1b[2Jnothing [b]here"})
    words = {"list": ["list", "job"], "show": ["show", "job", str(job)], "failures": ["failures"]}
    said = run_here(app, *words[command]).out

    assert "\x1b" not in said
    assert r"\x1b[" in said
    assert "[b]here" in said


def test_show_names_the_worker_of_a_running_job(engine: Engine) -> None:
    job = add_job(engine)
    claim(engine, job, worker="w7@host")
    outcome = run_here(app, "show", "job", str(job))

    assert [word for word in ("PROCESSING", "w7@host", "0 of 3 failed") if word not in outcome.out] == []


def test_failures_are_grouped_by_what_went_wrong_and_list_shows_a_group(engine: Engine) -> None:
    jobs = [add_job_in(engine, Status.FAILED) for _ in range(2)]
    (groups,) = told("failures")
    (group,) = groups["groups"]

    assert (group["rows"], group["fingerprint"]) == (2, "ValueError: no")
    assert [row["id"] for row in told("list", "job", "--group", group["group"])["rows"]] == jobs[::-1]
    assert "ValueError: no" in run_here(app, "failures").out


def test_failures_says_so_when_there_is_none() -> None:
    assert run_here(app, "failures", "--period", "1h").out == "nothing failed in the last 1h\n"


def test_stats_give_rates_and_durations(engine: Engine) -> None:
    for status in (Status.COMPLETED, Status.COMPLETED, Status.COMPLETED, Status.FAILED):
        add_job_in(engine, status)
    claim(engine, add_job(engine))
    (figures,) = told("stats", "job")

    assert (figures["created"], figures["ended"], figures["success_rate"], figures["completion_rate"]) == (
        5,
        4,
        0.75,
        0.8,
    )
    assert figures["running"]["count"] == 4
    assert "75.0 %" in run_here(app, "stats").out


def test_one_look_shows_all_domains_and_ends(engine: Engine) -> None:
    for status in Status:
        add_job_in(engine, status)
    outcome = run_here(app, "watch", "--once")

    assert (outcome.code, outcome.err) == (0, "")
    assert "1 jobs run on 1 worker processes" in outcome.out
    assert "\x1b" not in outcome.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_looks_again_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    looks: list[object] = []

    def look(*arguments: object) -> str:
        looks.append(arguments)
        if len(looks) == 2:
            raise DatabaseUnavailable("away for a while")
        if len(looks) == 3:
            os.kill(os.getpid(), number)
        return "a look"

    monkeypatch.setattr(watch, "_screen", look)
    before = signal.getsignal(number)
    outcome = run_here(app, "watch", "--interval", "0.1")

    assert (outcome.code, outcome.err, len(looks)) == (0, "", 3)
    assert signal.getsignal(number) == before


def test_watch_refuses_an_unknown_domain() -> None:
    assert run_here(app, "watch", "--once", "nothing").complains("nothing")


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([0, 0], "▁▁"), ([0, 1, 1000], "▁▂█"), ([7, 7], "██")],
)
def test_any_job_shows_in_the_line_of_throughput(values: list[int], line: str) -> None:
    assert watch.sparkline(values) == line
