"""The read model as Prometheus metrics; needs ``pip install 'tasktrail[web]'``.

Labels are domains, states and tables, so the number of series is bounded by the application. What rows may
take back, e.g. a failure that is retried, is a gauge over the last hour: a counter must not fall.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func, select

from tasktrail import counters
from tasktrail.errors import ReadTimeout
from tasktrail.guards import in_state, table_of
from tasktrail.library import library
from tasktrail.monitoring import queries
from tasktrail.monitoring.history import History, Percentiles
from tasktrail.monitoring.migrations import MigrationProgress, dispositions, migration_progress
from tasktrail.monitoring.queries import Period, Source, Window
from tasktrail.registry import Domain
from tasktrail.rollups import upper_bound
from tasktrail.settings import Settings
from tasktrail.states import ENDED, Status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS: Final = tuple(upper_bound(number) for number in range(8, 97, 8))
"""Upper bounds of the buckets of durations, in seconds: 0.004 s, and four times as much each, up to 4.7 h."""

SEEN_LATELY: Final = timedelta(minutes=5)
"""How lately a worker must have been seen in the rows to count."""

NEWEST_DUE: Final = 10_000
"""How many of the rows that became due last are looked at for the dispatch lag."""

LEDGER_INTERVAL: Final = 60.0
"""How long figures of the ledger, which is read whole, are used again, in seconds."""


class Metrics(Collector):
    """The metrics of one application, read anew at each scrape."""

    def __init__(
        self, engine: Engine, domains: Iterable[Domain], settings: Settings, *, schema: str | None
    ) -> None:
        """Remember what to read; nothing is connected.

        Args:
            engine: the database.
            domains: the registered domains.
            settings: lease and redispatch time.
            schema: where the library's own tables are.
        """
        self._engine = engine
        self._domains = tuple(domains)
        self._settings = settings
        self._schema = schema
        self._ledger: dict[tuple[str, str], int] = {}
        self._ledger_read_at = float("-inf")

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format, as of one moment.

        Raises:
            ReadTimeout: a statement took too long.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def describe(self) -> list[Metric]:
        """Name no metrics ahead, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read all figures."""
        with queries.reading(self._engine) as db:
            found = [*self._of_domains(db), *self._of_counters(db)]
            migrations = migration_progress(db, schema=self._schema)
            found += [*_of_workers(db, self._domains), *_of_migrations(migrations)]
        if migrations.is_under_way:
            found += self._of_ledger()
        yield from found

    def _of_domains(self, db: Source) -> Iterator[Metric]:
        jobs = _gauge("jobs", "Rows of a domain by state.", "domain", "state")
        due = _gauge("jobs_due", "PENDING rows whose due time has come.", "domain")
        held = _gauge("jobs_held", "PENDING rows that wait for other rows.", "domain")
        oldest = _gauge(
            "oldest_pending_seconds", "For how long the oldest due row waits; 0 if none.", "domain"
        )
        stuck = _gauge("stuck_jobs", "PROCESSING rows whose lease ran out, up to 10,000.", "domain")
        overdue = _gauge("overdue_jobs", "Rows due for long without a worker, up to 10,000.", "domain")
        dispatch = _gauge("dispatch_lag_seconds", "For how long a due row waits for its message.", "domain")
        rollup = _gauge("rollup_lag_seconds", "Age of the newest figures of history.", "domain")
        window = Window.of(Period.HOUR, queries.server_time(db))
        bound = self._settings.overdue_after
        found = queries.overview(db, self._domains, window, lease=self._settings.lease, bound=bound)
        for domain, one in zip(self._domains, found, strict=True):
            for state, rows in one.counts.by_state.items():
                jobs.add_metric((domain.name, state), rows)
            values = (
                (due, one.counts.due),
                (held, one.counts.held),
                (oldest, one.oldest.seconds if one.oldest else 0.0),
                (stuck, one.stuck.count),
                (overdue, one.overdue.count),
                (dispatch, _dispatch_lag(db, domain)),
                (rollup, _rollup_lag(db, domain)),
            )
            for metric, value in values:
                if value is not None:
                    metric.add_metric((domain.name,), value)
        yield from (jobs, due, held, oldest, stuck, overdue, dispatch, rollup)
        yield from _of_histories(one.history for one in found)

    def _of_counters(self, db: Source) -> Iterator[Metric]:
        found = counters.read(db, self._schema)
        for name, text in (
            (counters.LEASE_EXPIRIES, "Attempts given up because their lease ran out."),
            (counters.STALE_WRITES, "Writes of attempts that no longer owned their row, rejected."),
        ):
            metric = CounterMetricFamily(f"tasktrail_{name}", text, labels=("domain",))
            for domain in self._domains:
                metric.add_metric((domain.name,), found.get((domain.name, name), 0))
            yield metric

    def _of_ledger(self) -> Iterator[Metric]:
        complete = _gauge("migration_rows_complete", "Whether the ledger could be counted in time.")
        if time.monotonic() - self._ledger_read_at >= LEDGER_INTERVAL:
            try:
                with queries.reading(self._engine) as db:
                    self._ledger = dispositions(db, schema=self._schema)
                self._ledger_read_at = time.monotonic()
            except ReadTimeout:
                complete.add_metric((), 0)
        if not complete.samples:
            complete.add_metric((), 1)
        rows = _gauge("migration_rows", "Legacy rows by what became of them.", "table", "disposition")
        for labels, number in sorted(self._ledger.items()):
            rows.add_metric(labels, number)
        yield from (complete, rows)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tasktrail_{name}", text, labels=labels)


def _dispatch_lag(db: Source, domain: Domain) -> float:
    table = table_of(domain.model)
    newest = (
        select(table.c.next_attempt_at, table.c.dispatched_at)
        .where(in_state(table, Status.PENDING), table.c.next_attempt_at <= func.now())
        .order_by(table.c.next_attempt_at.desc())
        .limit(NEWEST_DUE)
        .subquery()
    )
    oldest = select(func.now() - func.min(newest.c.next_attempt_at)).where(newest.c.dispatched_at.is_(None))
    found = cast("timedelta | None", db.execute(oldest).scalar_one())
    return found.total_seconds() if found else 0.0


def _rollup_lag(db: Source, domain: Domain) -> float | None:
    state = library(domain.schema).rollup_state
    age = select(func.now() - state.c.rolled_to).where(state.c.domain == domain.name)
    found = cast("timedelta | None", db.execute(age).scalar())
    return None if found is None else found.total_seconds()


def _of_histories(histories: Iterable[History]) -> Iterator[Metric]:
    ended = _gauge(
        "jobs_ended_last_hour", "Rows that ended in the last hour, and still are.", "domain", "state"
    )
    created = _gauge("jobs_created_last_hour", "Rows that were added in the last hour.", "domain")
    attempts = _gauge("failed_attempts_last_hour", "Failed attempts of rows that ended in it.", "domain")
    retried = _gauge("jobs_retried_last_hour", "Rows that ended in it after more than one attempt.", "domain")
    running = GaugeHistogramMetricFamily(
        "tasktrail_run_seconds", "How long last attempts ran that ended in the last hour.", labels=("domain",)
    )
    waiting = GaugeHistogramMetricFamily(
        "tasktrail_wait_seconds", "How long these waited from due time to claim.", labels=("domain",)
    )
    for history in histories:
        domain = history.domain
        for state in sorted(ENDED):
            ended.add_metric((domain, state), getattr(history, state.lower()))
        created.add_metric((domain,), history.created)
        retries = history.retries
        attempts.add_metric((domain,), round((retries.mean_attempts or 0) * retries.ended))
        retried.add_metric((domain,), retries.retried)
        for metric, lengths in ((running, history.running), (waiting, history.waiting)):
            metric.add_metric((domain,), _buckets(lengths), (lengths.mean or 0.0) * lengths.count)
    yield from (ended, created, attempts, retried, running, waiting)


def _buckets(lengths: Percentiles) -> list[tuple[str, float]]:
    below = [
        (f"{bound:.6g}", float(sum(rows for upper, rows in lengths.histogram if upper <= bound)))
        for bound in BUCKETS
    ]
    return [*below, ("+Inf", float(lengths.count))]


def _of_workers(db: Source, domains: Iterable[Domain]) -> Iterator[Metric]:
    since = queries.server_time(db) - SEEN_LATELY
    seen = [one for one in queries.workers(db, domains) if one.processing or one.seen_at >= since]
    metric = _gauge("workers", "Worker processes that have rows, or ended some in the last five minutes.")
    metric.add_metric((), len(seen))
    yield metric


def _of_migrations(found: MigrationProgress) -> Iterator[Metric]:
    phase = _gauge("migration_phase", "1 for the phase that a migration is in.", "migration", "phase")
    done = _gauge("migration_backfilled_rows", "Rows the backfill looked at.", "migration", "table")
    entries = _gauge("migration_queue_entries", "Changes noted and not applied to the other side.", "side")
    lag = _gauge("migration_queue_lag_seconds", "Age of the oldest of these changes.", "side")
    drift = _gauge("drift_rows", "Differences between legacy and new rows.", "migration", "table", "known")
    for name, current in found.phases.items():
        phase.add_metric((name, current), 1)
    for table in found.tables:
        done.add_metric((table.migration, table.table), table.rows)
    for side in ("legacy", "new") if found.phases else ():
        queue = next((queue for queue in found.queues if queue.side == side), None)
        entries.add_metric((side,), queue.entries if queue else 0)
        lag.add_metric((side,), queue.seconds if queue else 0.0)
    for one in found.drift:
        drift.add_metric((one.migration, one.table, "yes" if one.is_known else "no"), one.differences)
    yield from (phase, done, entries, lag, drift)
