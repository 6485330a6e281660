"""Processes that run a step of a migration and are killed under way: at a named commit, or from outside.

A forkserver imports everything once, so that a hundred of them take seconds.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection as Pipe
from random import Random
from typing import Any, Final, Literal

import psycopg
from psycopg.pq import TransactionStatus

from tasktrail.engines import Engines
from tasktrail.migration import parallel
from tasktrail.migration.archive import archive
from tasktrail.migration.backfill import Backfill
from tasktrail.migration.cutover import Cutover
from tasktrail.migration.drop import drop
from tasktrail.migration.gate import Conditions
from tasktrail.migration.restore import restore_dropped
from tasktrail.migration.rollback import Rollback
from tasktrail.migration.runner import Runner
from tasktrail.migration.session import Session
from tasktrail.migration.sync import apply_changes
from tasktrail.migration.workspace import Workspace
from tests.support import SCHEMA

PATIENCE: Final = 60.0
"""How long a process may take to begin, or to end by itself, in seconds."""

PRELOADED: Final = ["pytest", "tests.migration.mortal", "tests.migration.legacy", "portfolio.legacy.plan"]
"""The plans of all who come: the server is started once, and what it lacks each process imports again."""

LEAVES_NOTHING: Final = ("SELECT", "SHOW", "CREATE TEMP")
"""How statements begin that leave nothing behind when they are committed."""

Moment = Literal["before", "after"]
Step = Literal["sync", "backfill", "parallel", "compare", "cutover", "rollback", "archive", "drop", "restore"]

ANY: Final = Conditions(clean_passes=0, seconds=1e9, second_window=timedelta())
"""Nothing but what can never be waived."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What a process is to do.

    Attributes:
        plan: ``module:attribute``.
        url: the database.
        step: of the migration; see ``take``.
        chunk_size: rows in a chunk of the backfill.
    """

    plan: str
    url: str
    step: Step = "backfill"
    chunk_size: int = 10


@dataclass(frozen=True, slots=True)
class Death:
    """Where a process kills itself.

    Attributes:
        commit: which commit of its own, from 1.
        moment: on which side of it.
    """

    commit: int
    moment: Moment


def run_to_its_end(errand: Errand) -> int:
    """Let a process do it undisturbed, and return how many commits it made."""
    process, pipe = _start(errand, None)
    assert pipe.poll(PATIENCE)
    commits: int = pipe.recv()
    process.join(PATIENCE)
    assert process.exitcode == 0
    return commits


def run_to_its_death(errand: Errand, death: Death) -> None:
    """Let a process do it until it kills itself, just before or just after one of its commits."""
    process, _ = _start(errand, death)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL, process.exitcode


def killed_at_random(errand: Errand, dice: Random, longest: float) -> bool:
    """Let a process do it, and kill it after a random time.

    Args:
        errand: what it does.
        dice: decides when.
        longest: how long it lives at most, in seconds.

    Returns:
        Whether it was killed; it may have ended before.
    """
    process, _ = _start(errand, None)
    process.join(dice.uniform(0.0, longest))
    process.kill()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}, process.exitcode
    return process.exitcode != 0


def _start(errand: Errand, death: Death | None) -> tuple[Any, Pipe]:
    """Start a process, and return it once it has begun."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_do, args=(errand, death, theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(PATIENCE)
    assert ours.recv() == "begins"
    return process, ours


def _do(errand: Errand, death: Death | None, pipe: Pipe) -> None:
    """Be such a process."""
    module, _, attribute = errand.plan.partition(":")
    workspace = Workspace(getattr(importlib.import_module(module), attribute), Engines(errand.url), SCHEMA)
    with workspace.session("mortal") as session:
        pipe.send("begins")
        commits = _count_commits(death)
        take(errand, workspace, session)
    pipe.send(commits[0])


def take(errand: Errand, workspace: Workspace, session: Session) -> None:
    """Take a step as the command of its name does; after the backfill the queue is emptied as well."""
    match errand.step:
        case "sync":
            Runner(workspace, session).sync()
        case "backfill":
            # On one connection, so that commits come in the same order each time.
            copy = Backfill(workspace, chunk_size=errand.chunk_size, connections=1)
            Runner(workspace, session).backfill(copy)
            apply_changes(session, workspace, workspace.reconcilers(session))
        case "parallel":
            parallel.begin(session, workspace, timedelta())
        case "compare":
            parallel.run_pass(session, workspace)
        case "cutover":
            Cutover(workspace, session).run(ANY)
        case "rollback":
            Rollback(workspace, session).run()
        case "archive":
            archive(session, workspace)
        case "drop":
            drop(session, workspace)
        case "restore":
            restore_dropped(session, workspace)


def _count_commits(death: Death | None) -> list[int]:
    """Count this process's commits from now on, in the list returned, and die at the one that is named."""
    commits = [0]
    real_transaction, real_execute = psycopg.Connection.transaction, psycopg.Connection.execute

    def reach(moment: Moment) -> None:
        commits[0] += moment == "before"
        if death == Death(commits[0], moment):
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def transaction(
        self: psycopg.Connection[Any], savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        # One within another is a savepoint, and commits nothing.
        is_outermost = self.info.transaction_status is TransactionStatus.IDLE
        leaves_something = is_outermost and not force_rollback and not self.read_only
        with real_transaction(self, savepoint_name, force_rollback) as inner:
            yield inner
            if leaves_something:
                reach("before")
        if leaves_something:
            reach("after")

    def execute(self: psycopg.Connection[Any], query: Any, *values: Any, **more: Any) -> Any:
        is_alone = self.info.transaction_status is TransactionStatus.IDLE
        if not is_alone or query.as_string(None).lstrip().startswith(LEAVES_NOTHING):
            return real_execute(self, query, *values, **more)
        reach("before")
        cursor = real_execute(self, query, *values, **more)
        reach("after")
        return cursor

    psycopg.Connection.transaction = transaction  # type: ignore[method-assign, assignment]
    psycopg.Connection.execute = execute  # type: ignore[method-assign]
    return commits
