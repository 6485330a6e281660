"""Maintenance of the tests' domains, round by round; what it would send is noted instead."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sqlalchemy import Engine, text

from tasktrail import RetryPolicy, Settings, counters
from tasktrail.chores import Chore
from tasktrail.engines import Engines
from tasktrail.maintenance import LEADER_LOCK, Done, Maintenance
from tasktrail.registry import Domain, Registry
from tests.rows import Model
from tests.support import (
    SCHEMA,
    AsyncJobTracking,
    AsyncJobTrackingService,
    JobTracking,
    JobTrackingService,
    OrderTracking,
    OrderTrackingService,
)

Rows = Sequence[tuple[int, str | None]]


class Outbox:
    """Takes the place of the broker: notes what it is given to send.

    Attributes:
        sent: how often each row of each domain was sent.
        batches: the sizes of the batches.
        works: whether it sends anything.
        before: called before each batch.
    """

    def __init__(self) -> None:
        self.sent: Counter[tuple[str, int]] = Counter()
        self.batches: list[int] = []
        self.works = True
        self.before: Callable[[Rows], object] = lambda _: None

    def __call__(self, domain: Domain, rows: Rows) -> bool:
        self.before(rows)
        self.batches.append(len(rows))
        if self.works:
            self.sent.update((domain.name, row_id) for row_id, _ in rows)
        return self.works

    def ids(self, domain: str = "job") -> list[int]:
        """Return the ids that were sent, in order, once for each time."""
        return sorted(row_id for (name, row_id) in self.sent.elements() if name == domain)


class Upkeep:
    """Maintenance of the domains of ``tests/support`` on one database."""

    def __init__(
        self,
        url: str,
        *,
        outbox: Outbox | None = None,
        policy: RetryPolicy | None = None,
        name: str = "upkeep",
        domains: Sequence[Domain] | None = None,
        chores: Sequence[Chore] = (),
        **options: object,
    ) -> None:
        self.settings = Settings.load(database_url=url, **options)
        self.engines = Engines(url, application_name=name, silence=self.settings.lease)
        self.outbox = outbox or Outbox()
        self.registry = Registry()
        for domain in domains or all_domains(policy or RetryPolicy()):
            self.registry.add(domain)
        self.maintenance = Maintenance(
            self.registry, self.engines, self.outbox, self.settings, schema=SCHEMA, chores=chores
        )

    def tick(self) -> Done:
        """Do one round."""
        with self.engines.pooled() as db:
            return self.maintenance.tick(db)

    def lead(self) -> Done:
        """Do one round as the leader, whose statements wait for locks no longer than a moment."""
        with self.engines.pooled() as db, ExitStack() as leading:
            assert self.maintenance._lead(db, leading)
            return self.maintenance.tick(db)

    def prune(self) -> int:
        """Do a round of pruning; return how many rows went."""
        return self.maintenance.prune()

    def tick_until_nothing_is_left(self) -> list[Done]:
        """Do rounds until one finds nothing to do."""
        rounds = []
        while done := self.tick():
            rounds.append(done)
        return rounds

    @contextmanager
    def running(self) -> Iterator[threading.Thread]:
        """Run the loop on a thread of its own for as long as the block takes."""
        stop = threading.Event()
        thread = threading.Thread(target=self.maintenance.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(10)
            self.engines.dispose()

    def counters(self) -> dict[tuple[str, str], int]:
        """Return the counters."""
        with self.engines.pooled() as db:
            return counters.read(db, SCHEMA)


def all_domains(policy: RetryPolicy) -> list[Domain]:
    """Return the domains of ``tests/support``, with one policy."""
    return [
        Domain(
            name="job",
            model=JobTracking,
            service=JobTrackingService,
            task_name="tests.job",
            policy=policy,
            schema=SCHEMA,
        ),
        Domain(
            name="async_job",
            model=AsyncJobTracking,
            service=AsyncJobTrackingService,
            task_name="tests.async_job",
            policy=policy,
            schema=SCHEMA,
        ),
        Domain(
            name="order",
            model=OrderTracking,
            service=OrderTrackingService,
            task_name="tests.order",
            policy=policy,
            schema=SCHEMA,
        ),
    ]


def shift(
    engine: Engine, seconds: float, *columns: str, ids: Sequence[int] = (), model: Model = JobTracking
) -> None:
    """Move times of rows, of all if none are named: negative seconds let that much time pass for them."""
    moves = ", ".join(f"{column} = {column} + make_interval(secs => :seconds)" for column in columns)
    with engine.begin() as db:
        db.execute(
            text(f"UPDATE {model.__table__.fullname} SET {moves} WHERE :all OR id = ANY (:ids)"),
            {"seconds": seconds, "ids": list(ids), "all": not ids},
        )


def leaders(engine: Engine) -> list[str]:
    """Return the names of the connections that hold the leader's lock."""
    query = text(
        "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND granted AND classid = :key AND objsubid = 2"
        " AND pg_stat_activity.datname = current_database()"
    )
    with engine.connect() as db:
        return list(db.scalars(query, {"key": LEADER_LOCK}))


def disconnect(engine: Engine, name: str) -> None:
    """Have the server end the connections of that name."""
    with engine.begin() as db:
        db.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = :name"
            ),
            {"name": name},
        )
