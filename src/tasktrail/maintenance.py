"""The loop that keeps every job moving: dispatch, rescue, prerequisites, rollups, pruning.

One leader at a time, elected by a PostgreSQL advisory lock on the connection that does the work: when the
connection goes, leadership goes with it. Leadership only saves work. Every statement takes its rows under a
guard, so two leaders at once do nothing twice.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tasktrail import bookkeeping, counters, sweeps
from tasktrail.chores import Chore, doing
from tasktrail.engines import Engines
from tasktrail.errors import DatabaseUnavailable, LeaseExpired
from tasktrail.guards import table_of
from tasktrail.library import library
from tasktrail.partitions import LOCK_TIMEOUT, set_lock_timeout
from tasktrail.registry import Domain, Registry
from tasktrail.retention import PartitionKeeper, prune_rows
from tasktrail.settings import Settings
from tasktrail.troubles import Troubles

logger = logging.getLogger(__name__)

LEADER_LOCK: Final = 1_685_053_812
"""First key of the advisory lock that a leader holds; the second stands for the tables it looks after."""

BATCH: Final = 500
"""How many rows one statement takes."""

BATCHES_PER_TICK: Final = 40
"""How many batches of one kind a tick takes from one domain, so that the others get their turn."""


class Send(Protocol):
    """Sends the messages of rows of one domain; returns whether they went out. Must not mark the rows."""

    def __call__(self, domain: Domain, rows: Sequence[tuple[int, str | None]]) -> bool:
        """Send one message for each id and Celery task id."""
        ...


@dataclass(slots=True)
class Done:
    """What one round of maintenance did, in rows."""

    dispatched: int = 0
    rescued: int = 0
    made_due: int = 0
    cancelled: int = 0

    def __bool__(self) -> bool:
        return any((self.dispatched, self.rescued, self.made_due, self.cancelled))


class Maintenance:
    """One round of maintenance over all domains, and the loop that repeats it while it leads."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        send: Send,
        settings: Settings,
        *,
        schema: str | None,
        chores: Sequence[Chore] = (),
    ) -> None:
        """Remember what to work with; nothing is connected.

        Args:
            registry: the domains; to those without a task nothing is sent.
            engines: the process's database engines.
            send: sends messages.
            settings: intervals, lease and retention.
            schema: where the library's own tables are.
            chores: what the leader does besides, on threads of their own.
        """
        self._registry = registry
        self._engines = engines
        self._send = send
        self._settings = settings
        self._schema = schema
        self._chores = (
            Chore("rollups", settings.rollup_interval, self.roll_up),
            Chore("pruning", settings.prune_interval, self.prune),
            *chores,
        )
        self._partitions = PartitionKeeper(engines)
        self._troubles = Troubles()
        self._rescue_from: dict[str, float] = {}
        self._reached: dict[str, list[tuple[float, datetime]]] = {}

    def run(self, stop: threading.Event) -> None:
        """Lead whenever nobody else does, until told to stop; an unreachable database is waited for.

        A new leader rescues nothing until the workers had time for two heartbeats: after an outage of the
        database all leases look expired.

        Args:
            stop: ends the loop.
        """
        while not stop.is_set():
            try:
                with self._engines.pooled() as db, ExitStack() as leading:
                    if not self._lead(db, leading):
                        stop.wait(self._settings.maintenance_interval)
                        continue
                    logger.info("maintenance: leading")
                    for domain in self._registry:
                        self._wait_for_heartbeats(domain)
                    leading.enter_context(doing(self._chores))
                    while not stop.is_set():
                        self.tick(db)
                        stop.wait(self._settings.maintenance_interval)
            except (DatabaseUnavailable, SQLAlchemyError) as error:
                logger.warning("maintenance: leadership lost: %s", error)
                stop.wait(self._settings.maintenance_interval)
            except Exception:  # the thread must outlive whatever it meets
                logger.exception("maintenance: leadership given up")
                stop.wait(self._settings.maintenance_interval)

    def tick(self, db: Connection) -> Done:
        """Do one round; a domain in which something fails does not keep the others from it.

        Args:
            db: a connection on which each statement commits.

        Returns:
            What was done.
        """
        done = Done()
        for domain in self._registry:
            if time.monotonic() >= self._rescue_from.get(domain.name, 0.0):
                with self._apart("the rescue", domain):
                    done.rescued += self._rescue(db, domain)
        with self._troubles.contained("the look at prerequisites"):
            self._prerequisites(db, done)
        for domain in self._registry:
            if domain.task_name is not None:
                with self._apart("the dispatch", domain):
                    done.dispatched += self._dispatch(db, domain)
        if done:
            logger.info("maintenance: %s", done)
        return done

    def roll_up(self) -> None:
        """Bring the figures of all domains up to date; the leader does so on a thread of its own."""
        for domain in self._registry:
            with self._troubles.contained(f"the rollup of {domain.name}"):
                bookkeeping.roll_up(self._engines.maintenance, domain)

    def prune(self) -> int:
        """Delete rows past their retention, and make partitions ahead; on a thread of its own as well.

        A domain in which that fails does not keep the others from it.

        Returns:
            How many rows went.
        """
        pruned = 0
        for domain in self._registry:
            with self._troubles.contained(f"the pruning of {domain.name}"):
                pruned += self._prune(domain)
        if pruned:
            logger.info("maintenance: pruned %d rows", pruned)
        return pruned

    def _lead(self, db: Connection, leading: ExitStack) -> bool:
        # Applications that share a database but no table must not keep each other from leading.
        tables = " ".join(sorted(table_of(domain.model).fullname for domain in self._registry))
        key = {"key": LEADER_LOCK, "tables": tables}
        if not db.execute(text("SELECT pg_try_advisory_lock(:key, hashtext(:tables))"), key).scalar():
            return False
        # The connection goes back to a pool, so a lock that was not given up would be held for ever.
        leading.callback(
            lambda: (
                db.invalidated or db.execute(text("SELECT pg_advisory_unlock(:key, hashtext(:tables))"), key)
            )
        )
        for setting, seconds in (
            # A leader that is silent for a lease, paused or cut off from the network, makes room for another.
            ("idle_session_timeout", self._settings.lease),
            # Whoever locks a table holds up nothing but its own domain.
            ("lock_timeout", LOCK_TIMEOUT),
        ):
            self._limit(db, leading, setting, seconds)
        return True

    def _limit(self, db: Connection, leading: ExitStack, setting: str, seconds: float) -> None:
        milliseconds = str(round(seconds * 1000))
        db.execute(
            text("SELECT set_config(:setting, :milliseconds, false)"),
            {"setting": setting, "milliseconds": milliseconds},
        )
        leading.callback(lambda: db.invalidated or db.execute(text(f"RESET {setting}")))

    @contextmanager
    def _apart(self, work: str, domain: Domain) -> Iterator[None]:
        """Keep trouble with a domain's table from the other domains."""
        with self._troubles.contained(f"{work} of {domain.name}"):
            try:
                yield
            except DBAPIError as error:
                if isinstance(error.orig, LockNotAvailable):
                    self._wait_for_heartbeats(domain)  # which the lock holds up as well
                raise

    def _wait_for_heartbeats(self, domain: Domain) -> None:
        self._rescue_from[domain.name] = time.monotonic() + 2 * self._settings.heartbeat_interval

    def _dispatch(self, db: Connection, domain: Domain) -> int:
        sent = 0
        parameters = {
            "_batch": BATCH,
            "_redispatch_after": self._settings.redispatch_after,
            "_reached": self._queue_reached(db, domain),
        }
        for _ in range(BATCHES_PER_TICK):
            rows = db.execute(sweeps.take_due_for_dispatch(domain.model), parameters).all()
            if rows and not self._send(domain, [(row.id, row.celery_task_id) for row in rows]):
                for row in rows:
                    mark = {"_row_id": row.id, "_marked_at": row.dispatched_at}
                    db.execute(sweeps.forget_dispatch_if_unchanged(domain.model), mark)
                break
            sent += len(rows)
            if len(rows) < BATCH:
                break
        return sent

    def _queue_reached(self, db: Connection, domain: Domain) -> datetime | None:
        """Return the newest due time of a row that was taken lately, ``None`` when none was.

        Jobs may be shorter than the time between two rounds, so what earlier rounds saw counts for a while.
        """
        now, memory = time.monotonic(), self._settings.redispatch_after
        newest = db.scalar(sweeps.newest_due_taken_since(domain.model), {"_redispatch_after": memory})
        seen = [(at, due) for at, due in self._reached.get(domain.name, []) if at > now - memory]
        self._reached[domain.name] = seen if newest is None else [*seen, (now, newest)]
        return max((due for _, due in self._reached[domain.name]), default=None)

    def _rescue(self, db: Connection, domain: Domain) -> int:
        policy = domain.policy
        parameters = {
            "_batch": BATCH,
            "_lease": self._settings.lease,
            "_base": policy.base,
            "_factor": policy.factor,
            "_cap": policy.cap,
            # Beyond this, PostgreSQL's numbers overflow, and the cap has long been reached.
            "_exponent_limit": int(600 / math.log(policy.factor)) if policy.factor > 1 else 0,
            "_jitter": policy.jitter,
            "_gives_up": issubclass(LeaseExpired, policy.give_up_on),
            "_error": f"LeaseExpired: no heartbeat for {self._settings.lease:g} s",
        }
        rescued = 0
        for _ in range(BATCHES_PER_TICK):
            taken = len(db.execute(sweeps.rescue_if_lease_expired(domain.model), parameters).all())
            rescued += taken
            if taken < BATCH:
                break
        if rescued:
            counters.add(db, self._schema, domain.name, counters.LEASE_EXPIRIES, rescued)
        return rescued

    def _prerequisites(self, db: Connection, done: Done) -> None:
        needs = library(self._schema).prerequisites
        pairs = select(needs.c.domain, needs.c.needs_domain).where(needs.c.met_at.is_(None)).distinct()
        unmet = [(row.domain, row.needs_domain) for row in db.execute(pairs)]
        for name in sorted({needed for _, needed in unmet if needed in self._registry}):
            with self._troubles.contained(f"the look at what waits for {name}"):
                done.made_due += self._meet(self._registry.get(name))
        for waiting, needed in unmet:
            if waiting in self._registry and needed in self._registry:
                with self._troubles.contained(f"the cancelling of {waiting} that waits for {needed}"):
                    done.cancelled += self._cancel_broken(
                        db, self._registry.get(waiting), self._registry.get(needed)
                    )

    def _meet(self, needed: Domain) -> int:
        """Mark prerequisites as met and make rows due that waited for nothing else, in one transaction."""
        made_due = 0
        with self._engines.maintenance.begin() as db:
            set_lock_timeout(db)
            waiting: dict[str, list[int]] = {}
            for meet in (sweeps.meet_prerequisites_on, sweeps.meet_prerequisites_on_absent):
                for row in db.execute(meet(needed.model, self._schema)):
                    waiting.setdefault(row.domain, []).append(row.tracking_id)
            for name, ids in sorted(waiting.items()):
                if name in self._registry:
                    model = self._registry.get(name).model
                    # Whoever meets other prerequisites of these rows or revives them is done then.
                    db.execute(sweeps.lock_rows(model), {"_ids": ids})
                    statement = sweeps.make_due_if_prerequisites_met(model, self._schema)
                    made_due += len(db.execute(statement, {"_ids": ids}).all())
        return made_due

    def _cancel_broken(self, db: Connection, waiting: Domain, needed: Domain) -> int:
        broken = sweeps.broken_prerequisites(waiting.model, needed.model, self._schema)
        cancelled = 0
        for row in db.execute(broken, {"_batch": BATCH}).all():
            reason = (
                f"prerequisite {needed.name} {row.needs_id} {f'is {row.status}' if row.status else 'is gone'}"
            )
            parameters = {"_row_id": row.tracking_id, "_error": reason}
            cancelled += len(db.execute(sweeps.cancel_if_held(waiting.model), parameters).all())
        return cancelled

    def _prune(self, domain: Domain) -> int:
        engine = self._engines.maintenance
        seconds = self._retention(domain)
        pruned = 0
        if domain.model.__tracking__.partition_days is not None:
            pruned, is_all = self._partitions.keep(domain, seconds)
            if not is_all:
                return pruned
        pruned += prune_rows(engine, domain, seconds, batch=BATCH, batches=BATCHES_PER_TICK)
        with engine.begin() as db:
            bookkeeping.prune(db, domain)
        return pruned

    def _retention(self, domain: Domain) -> float:
        days = self._settings.retention
        return domain.retention.total_seconds() if domain.retention else days * 86_400.0
