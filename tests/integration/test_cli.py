"""The ``tasktrail`` command: which application it is about, and what each command does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from kombu import Connection
from sqlalchemy import Engine, text

from conftest import MakeDatabase
from tasktrail import ConfigurationError, TasktrailError, Trail
from tasktrail.cli import run
from tasktrail.cli.app import app
from tasktrail.cli.application import load_trail
from tasktrail.cli.maintain import STOP_SIGNALS, run_until_stopped
from tests.commands import Outcome, program, run_here

ROOT = Path(__file__).parents[2]

SHOP = """
from types import SimpleNamespace
from celery import Celery
from tests.support import SCHEMA, JobTrackingService
from tasktrail import ConfigurationError, Settings, Trail

app = Celery("shop", include=["shop_tasks"])
app.conf.task_default_queue = "queue of the shop"
trail = Trail(app, Settings.load(), schema=SCHEMA)
plain = Celery("plain")
holder = SimpleNamespace(trail=trail)
number = 7

make_trail = lambda: trail
make_app = lambda: app
make_nothing = lambda: None

def needs_more(settings):
    return trail

def fails():
    raise ValueError("no shop today")

def refuses():
    raise ConfigurationError("the shop is closed")
"""
SHOP_TASKS = """
from shop import trail
from tests.support import JobTrackingService

@trail.task(JobTrackingService, name="shop.job")
def job(run): ...
"""
MODULES = {
    "shop": SHOP,
    "shop_tasks": SHOP_TASKS,
    "raises": "raise ValueError('not\\ntoday')",
    "lacks": "import no_such_library",
    "misspelt": "def :",
    "unconfigured": "from celery import Celery\nfrom tasktrail import Settings, Trail\n"
    "trail = Trail(Celery('x'), Settings())",
}


@pytest.fixture
def shop(project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the modules of an application, as the working directory."""
    for name, code in MODULES.items():
        (project_folder / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    yield project_folder
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("attribute", ["trail", "app", "holder.trail", "make_trail", "make_app"])
def test_an_application_is_a_trail_or_a_celery_application_or_what_makes_one(
    shop: Path, attribute: str
) -> None:
    trail = load_trail(f"shop:{attribute}")

    assert isinstance(trail, Trail)
    assert [domain.task_name for domain in trail.registry] == ["shop.job"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (None, "no application is named: write tasktrail --app module:attribute, or set TASKTRAIL_APP"),
        ("", "no application is named"),
        ("shop", "--app shop: write module:attribute, e.g. shop:trail"),
        ("shop:", "write module:attribute"),
        (":trail", "write module:attribute"),
        ("no_such:trail", "there is no module no_such, neither installed nor in "),
        ("shop.deeper:trail", "there is no module shop.deeper"),
        ("no_such.deeper:trail", "there is no module no_such, neither"),
        ("..:trail", "importing it failed: TypeError: "),
        ("shop:nothing", "--app shop:nothing: shop has no nothing; it has app, trail"),
        ("shop:holder.nothing", "shop has no holder.nothing"),
        (
            "shop:number",
            "it is of type int, but must be a Trail, a Celery application with one, or a function",
        ),
        ("shop:plain", "it is of type Celery, but must be"),
        ("shop:make_nothing", "it is of type NoneType, but must be"),
        ("shop:needs_more", "calling it failed: TypeError: needs_more() missing 1 required"),
        ("shop:fails", "calling it failed: ValueError: no shop today"),
        ("shop:refuses", "the shop is closed"),
        ("raises:trail", "importing it failed: ValueError: not"),
        ("lacks:trail", "importing it failed: ModuleNotFoundError: No module named 'no_such_library'"),
        ("misspelt:trail", "importing it failed: SyntaxError: "),
    ],
)
def test_an_application_that_cannot_be_used_is_one_clear_line(
    shop: Path, name: str | None, reason: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_trail(name)
    outcome = run_here(app, *(["--app", name] if name is not None else []), "maintain")

    assert reason in str(refused.value)
    assert outcome.complains(" ".join(reason.split()))
    assert outcome.out == ""


def test_what_an_application_says_itself_is_shown_as_it_is(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASKTRAIL_DATABASE_URL")

    assert run_here(app, "--app", "unconfigured:trail", "maintain").complains("no database is configured")


def test_tasks_that_cannot_be_imported_are_one_clear_line(shop: Path) -> None:
    (shop / "shop_tasks.py").write_text("raise ValueError('no tasks')", encoding="utf-8")

    assert run_here(app, "--app", "shop:trail", "maintain").complains(
        "importing its tasks failed", "no tasks"
    )


def test_the_environment_can_name_the_application_and_the_command_line_wins(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKTRAIL_APP", "shop:number")

    assert run_here(app, "maintain").complains("--app shop:number: it is of type int")
    assert run_here(app, "--app", "shop:plain", "maintain").complains(
        "--app shop:plain: it is of type Celery"
    )


def test_maintain_dispatches_a_row_that_has_no_message_and_ends_in_peace(
    shop: Path, engine: Engine, redis_url: str
) -> None:
    with engine.begin() as db:
        row = db.scalar(text("INSERT INTO tracking.job_tracking (payload) VALUES ('x') RETURNING id"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TASKTRAIL_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "TASKTRAIL_BROKER_URL": redis_url,
    }
    command = [program("tasktrail"), "--app", "shop:trail", "maintain", "--loglevel", "info"]
    with (
        Connection(redis_url) as broker,
        broker.SimpleQueue("queue of the shop") as queue,
        subprocess.Popen(command, env=environment, text=True, stdout=-1, stderr=-1) as process,
    ):
        try:
            message = queue.get(timeout=60)
            message.ack()
        finally:
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)

    assert (message.headers["task"], message.payload[0]) == ("shop.job", [row])
    assert (process.returncode, out.splitlines()) == (
        0,
        [f"maintaining job (pid {process.pid})", "maintenance has ended"],
    )
    assert "maintenance: Done(dispatched=1" in err
    with engine.connect() as db:
        marked = db.execute(text("SELECT dispatched_at, status FROM tracking.job_tracking")).one()
    assert marked.dispatched_at is not None
    assert marked.status == "PENDING"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_the_work_and_a_second_one_is_heeded_by_whoever_was_there_before(
    number: signal.Signals,
) -> None:
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    in_between = []
    ended = []

    def work(stop: threading.Event) -> None:
        ended.append(stop.wait(20))

    def started() -> None:
        os.kill(os.getpid(), number)
        in_between.append(signal.getsignal(number))

    run_until_stopped(work, started=started)

    assert (ended, in_between) == ([True], [before[STOP_SIGNALS.index(number)]])
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_work_that_breaks_off_is_an_error_of_the_command() -> None:
    def work(_: threading.Event) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        run_until_stopped(work, started=lambda: None)


def test_dev_starts_what_has_no_url_says_so_and_stops_it(
    project_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", "postgresql://db.example/shop")
    try:
        up, status = run_here(app, "dev", "up"), run_here(app, "dev", "status")
        (socket,) = (Path(found) for found in re.findall(r"redis\+socket://(.+redis\.sock)'", up.out))
        was_there = socket.exists()
    finally:
        down = run_here(app, "dev", "down")

    assert (up.code, up.out.splitlines(), up.err) == (
        0,
        [
            "export TASKTRAIL_DATABASE_URL='postgresql://db.example/shop'",
            f"export TASKTRAIL_BROKER_URL='redis+socket://{socket}'",
        ],
        "",
    )
    assert status.out.splitlines()[0] == "PostgreSQL: not running"
    assert status.out.splitlines()[1].startswith("Redis: running, pid ")
    assert down == Outcome(0, "Redis: stopped\nPostgreSQL: was not running\n", "")
    assert was_there
    assert not socket.exists()


def test_dev_creates_the_tables_that_are_not_there(
    shop: Path, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", make_database())
    first, again = (run_here(app, "--app", "shop:trail", "dev", "create-tables") for _ in range(2))

    assert (first.code, first.out.splitlines()[0]) == (0, "created version 1 of the library's tables")
    assert "created tracking.job_tracking" in first.out.splitlines()
    assert again == Outcome(0, "nothing to create: all tables are there\n", "")
    assert run_here(app, "--app", "shop:trail", "status").code == 0


def test_the_version_is_that_of_the_package() -> None:
    assert run_here(app, "--version") == Outcome(0, f"{version('tasktrail')}\n", "")


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["maintain", "--nonsense"], ["maintain", "--loglevel", "LOUD"], ["dev", "sideways"]],
)
def test_a_command_line_that_cannot_be_understood_is_a_usage_error(words: list[str]) -> None:
    outcome = run_here(app, *words)

    assert outcome.code == 2
    assert "Usage: " in outcome.err
    assert "Traceback" not in outcome.err


def failing(error: BaseException) -> typer.Typer:
    """An application with one command, which fails."""
    failing = typer.Typer(pretty_exceptions_enable=False)

    @failing.command()
    def fail() -> None:
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            TasktrailError("two\nlines  and [red]brackets[/] and a \\"),
            "two lines and [red]brackets[/] and a \\",
        ),
        (TasktrailError("x" * 500), "x" * 500),
        (NotADirectoryError(20, "Not a directory", "/dev/null/x"), "/dev/null/x: Not a directory"),
        (OSError("no more sockets"), "no more sockets"),
    ],
)
def test_an_error_is_one_line_as_it_is_or_a_traceback_if_asked_for(error: Exception, line: str) -> None:
    assert run_here(failing(error)) == Outcome(1, "", f"error: {line}\n")
    with pytest.raises(type(error)) as raised:
        run(failing(error), ["--traceback"])
    assert raised.value is error


def test_an_error_nobody_expected_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()), [])
