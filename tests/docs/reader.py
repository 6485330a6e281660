"""Does what a page of the documentation says, block by block, as somebody who follows it would."""

from __future__ import annotations

import importlib
import io
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest import mock

import pytest
from sqlalchemy import Engine, create_engine, select, text

from portfolio.cli import app as portfolio
from tasktrail import Settings, Status, Trail
from tasktrail.cli.app import app as tasktrail
from tasktrail.guards import table_of
from tasktrail.settings import ENVIRONMENT_PREFIX
from tests.commands import Outcome, run_here
from tests.docs.pages import SHELLS, Block, is_like
from tests.waiting import until

FOLDER: Final = Path(__file__).parent

PRINTED: Final = re.compile(r"\$\((.+)\)")
"""What the shell puts in the place of a command."""

PROGRAMS: Final = {"tasktrail": tasktrail, "portfolio": portfolio}


class Operator(io.StringIO):
    """Somebody at the keyboard who says yes to every question."""

    def readline(self, _: int | None = -1, /) -> str:
        sys.stdout.write("y\n")
        return "y\n"


@dataclass
class Reader:
    """Follows one page.

    Attributes:
        trail: that of the shop.
        engine: the shop's database, with the rows of ``tests.docs.world``.
        page: the module in which the page's Python runs.
        ran: the blocks that were run.
    """

    trail: Trail
    engine: Engine
    page: ModuleType
    ran: list[Block] = field(default_factory=list)

    def follow(self, block: Block) -> None:
        """Run one block, and compare what it prints with what the page shows."""
        if block.after_work:
            self.work()
        if block.language == "python":
            printed = self._python(block)
        elif block.language == "sql":
            printed = self._sql(block)
        elif block.language in SHELLS:
            printed = self._shell(block)
        else:
            raise AssertionError(
                f"{block}: nobody knows how to run {block.language!r}; say why it is not run"
            )
        assert not block.shown or is_like(printed, block.shown), f"{block} printed:\n{printed}"
        self.ran.append(block)

    def work(self) -> None:
        """Do what maintenance and a worker do, until nothing is due."""
        maintenance = self.trail.maintenance()
        while True:
            with self.trail.engines.pooled() as db:
                done = maintenance.tick(db)
                due = [(name, row.id) for name, row in self._due(db)]
            for name, tracking_id in due:
                self.trail.task_of(name).celery_task.apply(args=(tracking_id,))
            if not due and not done:
                return

    def _due(self, db: Any) -> Iterator[tuple[str, Any]]:
        for domain in self.trail.registry:
            table = table_of(domain.model)
            now = text("clock_timestamp()")
            query = select(table.c.id).where(table.c.status == Status.PENDING, table.c.next_attempt_at <= now)
            yield from ((domain.name, row) for row in db.execute(query).all())

    def _python(self, block: Block) -> str:
        lines_before = "\n" * block.line
        code = compile(lines_before + block.text, str(block.page), "exec", dont_inherit=True)
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code, vars(self.page))
        return printed.getvalue()

    def _sql(self, block: Block) -> str:
        lines = []
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            for statement in re.split(r";\s*(?:\n|$)", block.text):
                if not statement.strip():
                    continue
                result = db.exec_driver_sql(statement.replace("%", "%%"))
                rows = [" | ".join(map(str, row)) for row in result] if result.returns_rows else []
                is_empty = result.returns_rows and not rows
                assert not is_empty or block.may_be_empty, f"{block}: it finds nothing of what it is for"
                lines += rows
        return "\n".join(lines)

    def _shell(self, block: Block) -> str:
        printed = ""
        commands = block.commands
        assert commands, f"{block}: there is no command in it"
        for number, words in enumerate(commands, start=1):
            if words[0] == "export":
                _export(*words[1:])
                continue
            program = PROGRAMS.get(words[0])
            assert program is not None, f"{block}: {words[0]} is not run here; say why in a comment"
            runs_on = words[-1] == "maintain"
            outcome = _stopped(words) if runs_on else run_here(program, *words[1:])
            expected = block.exit_code if number == len(commands) else 0
            assert outcome.code == expected, f"{block}: {outcome}"
            printed += outcome.out + outcome.err
        return printed


def _export(*variables: str) -> None:
    """See that variables of the environment exist, and that their values are accepted.

    One that is no setting is set, to what a command prints.
    """
    for variable in variables:
        name, _, value = variable.partition("=")
        if command := PRINTED.fullmatch(value):
            program, *arguments = shlex.split(command[1])
            outcome = run_here(PROGRAMS[program], *arguments)
            assert outcome.code == 0, outcome
            os.environ[name] = outcome.out.strip()
            continue
        setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        assert setting in Settings.model_fields, f"there is no setting {name}"
        Settings.load(**{setting: value})


def _stopped(words: list[str]) -> Outcome:
    """Run a command that runs until it is stopped, and stop it as soon as it heeds signals."""
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        until(lambda: signal.getsignal(signal.SIGTERM) is not before)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        return run_here(PROGRAMS[words[0]], *words[1:])
    finally:
        stopper.join()


@contextmanager
def loaded(name: str, folder: Path, database_url: str, redis_url: str) -> Iterator[ModuleType]:
    """Import an application from a folder, on servers of the tests, with a queue of its own.

    Args:
        name: the module; it has the Celery application as ``app`` and the trail as ``trail``.
        folder: where it is; also the working directory.
        database_url: PostgreSQL.
        redis_url: Redis.
    """
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("TASKTRAIL_")]:
            patch.delenv(variable)
        patch.setenv("TASKTRAIL_DATABASE_URL", database_url)
        patch.setenv("TASKTRAIL_BROKER_URL", redis_url)
        patch.setattr(sys, "stdin", Operator())
        patch.syspath_prepend(str(folder))
        sys.modules.pop(name, None)
        before = set(sys.modules)
        module = importlib.import_module(name)
        trail: Trail = module.trail
        trail.app.conf.task_default_queue = f"queue of {database_url}"
        try:
            yield module
        finally:
            for other in set(sys.modules) - before:  # those that use the application
                if Path(getattr(sys.modules[other], "__file__", None) or "").parent == folder:
                    sys.modules.pop(other)
            trail._parts.loop.run(trail.engines.asynchronous.dispose(), on_start=lambda _: None)
            trail.engines.dispose()
            trail.app.close()


@contextmanager
def reading(database_url: str, redis_url: str) -> Iterator[Reader]:
    """Begin to follow a page, on a database of its own."""
    with mock.patch.dict(os.environ), loaded("shop", FOLDER, database_url, redis_url) as shop:
        page = ModuleType("page")
        sys.modules[page.__name__] = page
        engine = create_engine(shop.trail.engines.sync.url)
        try:
            yield Reader(shop.trail, engine, page)
        finally:
            engine.dispose()
            sys.modules.pop(page.__name__)
