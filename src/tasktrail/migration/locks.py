"""The moment in which nobody writes to some tables, short enough that nobody notices."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from psycopg import errors

from tasktrail.errors import MigrationError
from tasktrail.migration.session import CONFLICTS, Session
from tasktrail.migration.triggers import NOT_NOTED
from tasktrail.migration.workspace import Workspace

LOCK_TIMEOUT: Final = 100
"""Longest wait for one table's lock, in milliseconds: so long writers may have to wait behind us."""

LONGEST_STATEMENT: Final = 150
"""Longest statement under the locks, in milliseconds; then they are given up, and taken again later."""

FEW: Final = 200
"""The locks are only asked for while fewer changes than that are to be carried over."""

ATTEMPTS: Final = 60


class NotDrained(Exception):
    """Changes came faster than they were carried over."""


def under_locks(
    session: Session,
    workspace: Workspace,
    step: str,
    tables: Sequence[str],
    *,
    drain: Callable[[], object],
    waiting: Callable[[], int],
    work: Callable[[], None],
) -> None:
    """Run a transaction while nobody writes to some tables; given up and tried again when it takes long.

    Args:
        session: outside any transaction.
        workspace: the plan and the database.
        step: what is done, in words.
        tables: which ones, quoted.
        drain: carries over what waits; before the locks are asked for.
        waiting: says how many changes wait.
        work: the transaction; it may raise NotDrained.

    Raises:
        MigrationError: it was not possible; everything is as before.
    """
    trouble, count = "", 0
    for attempt in range(1, ATTEMPTS + 1):
        drain()
        try:
            if (count := waiting()) > FEW:
                raise NotDrained  # noqa: TRY301  # the same as when it turns out under the locks
            seconds = _once(session, workspace, tables, work)
        except errors.LockNotAvailable:
            trouble = f"a lock was not had in {LOCK_TIMEOUT} ms; a long transaction has it"
        except errors.QueryCanceled:
            trouble = f"a statement took longer than {LONGEST_STATEMENT} ms"
        except (NotDrained, *CONFLICTS):
            trouble = f"{count} changes waited, and more came than were carried over"
        else:
            workspace.journal.note(
                session, f"{step}: locked", milliseconds=round(1000 * seconds), attempt=attempt
            )
            return
        time.sleep(random.uniform(0.05, min(0.1 * 1.2**attempt, 2.0)))  # noqa: S311  # no secret
    raise MigrationError(
        f"could not {step} in {ATTEMPTS} attempts: {trouble}. Everything is as before; run the same command "
        "again"
    )


def _once(session: Session, workspace: Workspace, tables: Sequence[str], work: Callable[[], None]) -> float:
    """Return how long the tables were locked, in seconds."""
    with all_locked(session, workspace):
        with session.snapshot():
            # Only commands without a snapshot may come before the lock: what is seen must be what it guards.
            session.run(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
            session.run(NOT_NOTED)
            session.run(f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE")
            began = time.monotonic()
            session.run(f"SET LOCAL statement_timeout = {LONGEST_STATEMENT}")
            work()
        return time.monotonic() - began


@contextmanager
def all_locked(session: Session, workspace: Workspace) -> Iterator[None]:
    """Keep others from carrying changes over, in either direction, for all tables."""
    with ExitStack() as stack:
        for table in workspace.plan.tables:
            stack.enter_context(session.locked(workspace.plan.name, table.name))
        yield
