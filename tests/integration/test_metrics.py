"""Metrics say what the read model says, and Prometheus finds nothing wrong with them and the alert rules."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from tasktrail import RetryPolicy, Settings, Status, bookkeeping, counters
from tasktrail.monitoring import queries
from tasktrail.monitoring.metrics import Metrics
from tests.promtool import promtool
from tests.rows import add_job, add_job_in
from tests.support import SCHEMA
from tests.upkeep import all_domains, shift

DOMAINS = all_domains(RetryPolicy())
JOBS = DOMAINS[0]
SETTINGS = Settings()
DEPLOY = Path(__file__).parents[2] / "deploy"
MIGRATION = """
INSERT INTO tracking.tasktrail_migrations (name, phase, domains) VALUES ('old', 'parallel', '{job}');
INSERT INTO tracking.tasktrail_migration_tables (migration, table_name, rows_done) VALUES ('old', 'task', 7);
INSERT INTO tracking.tasktrail_changes (side, table_name, source_key, operation, noted_at)
VALUES ('legacy', 'task', '1', 'U', now() - interval '90 s');
INSERT INTO tracking.tasktrail_drift (migration, table_name, found_by, row_key, what, known_as)
VALUES ('old', 'task', 'checksums', '1', 'x', NULL), ('old', 'task', 'checksums', '2', 'x', 'rounding');
INSERT INTO tracking.tasktrail_ledger (table_name, source_key, source_hash, disposition, rule_version)
VALUES ('task', '1', gen_random_uuid(), 'migrated', 1), ('task', '2', gen_random_uuid(), 'migrated', 1);
"""


@pytest.fixture
def busy(engine: Engine) -> Engine:
    """A database with rows of each state, counters, rollups and a migration."""
    for status in Status:
        add_job_in(engine, status)
    shift(engine, -120, "next_attempt_at", ids=[add_job(engine)])
    with engine.begin() as db:
        db.execute(text(MIGRATION))
        counters.add(db, SCHEMA, JOBS.name, counters.LEASE_EXPIRIES, 3)
    bookkeeping.roll_up(engine, JOBS)
    return engine


def read(engine: Engine) -> bytes:
    return Metrics(engine, DOMAINS, SETTINGS, schema=SCHEMA).text()


def samples(exposed: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values by name and by the values of their labels, in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exposed.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_prometheus_finds_nothing_wrong_with_the_metrics(busy: Engine) -> None:
    promtool("check", "metrics", given=read(busy))


def test_metrics_say_what_the_read_model_says(busy: Engine) -> None:
    found = samples(read(busy))

    with queries.reading(busy) as db:
        counts = queries.counts(db, JOBS)
    assert {state: found["tasktrail_jobs"]["job", state] for state in Status} == counts.by_state
    assert found["tasktrail_jobs_due"]["job",] == counts.due
    assert found["tasktrail_oldest_pending_seconds"]["job",] >= 120
    assert found["tasktrail_dispatch_lag_seconds"]["job",] >= 120
    assert found["tasktrail_overdue_jobs"]["job",] == 1
    assert found["tasktrail_lease_expiries_total"]["job",] == 3
    assert found["tasktrail_stale_writes_total"]["order",] == 0
    assert found["tasktrail_workers"][()] == 1
    assert found["tasktrail_rollup_lag_seconds"].keys() == {("job",)}


def test_metrics_show_what_ended_and_for_how_long_it_ran(engine: Engine) -> None:
    ids = [add_job_in(engine, Status.COMPLETED), add_job_in(engine, Status.FAILED)]
    shift(engine, -2, "created_at", "next_attempt_at", "started_at", "completed_at", ids=ids)
    shift(engine, -10, "started_at", "next_attempt_at", ids=ids[:1])

    found = samples(read(engine))

    assert found["tasktrail_jobs_ended_last_hour"]["job", "FAILED"] == 1
    assert found["tasktrail_failed_attempts_last_hour"]["job",] == 1
    buckets = {
        labels[1]: rows
        for labels, rows in found["tasktrail_run_seconds_bucket"].items()
        if labels[0] == "job"
    }
    assert (buckets["4.096"], buckets["16.384"], buckets["+Inf"]) == (1, 2, 2)


def test_metrics_show_how_far_a_migration_has_come(busy: Engine) -> None:
    found = samples(read(busy))

    assert found["tasktrail_migration_phase"] == {("old", "parallel"): 1}
    assert found["tasktrail_migration_backfilled_rows"] == {("old", "task"): 7}
    assert found["tasktrail_migration_rows"] == {("migrated", "task"): 2}
    assert found["tasktrail_migration_queue_entries"] == {("legacy",): 1, ("new",): 0}
    assert found["tasktrail_migration_queue_lag_seconds"]["legacy",] >= 90
    assert found["tasktrail_drift_rows"] == {("no", "old", "task"): 1, ("yes", "old", "task"): 1}


def test_more_rows_make_no_more_series(busy: Engine) -> None:
    def series(exposed: bytes) -> int:
        return sum(len(values) for values in samples(exposed).values())

    before = series(read(busy))
    for _ in range(20):
        add_job_in(busy, Status.FAILED)

    assert series(read(busy)) == before


def test_the_ledger_is_not_counted_at_each_scrape(busy: Engine) -> None:
    metrics = Metrics(busy, DOMAINS, SETTINGS, schema=SCHEMA)
    before = samples(metrics.text())
    with busy.begin() as db:
        db.execute(text("DELETE FROM tracking.tasktrail_ledger"))

    assert samples(metrics.text())["tasktrail_migration_rows"] == before["tasktrail_migration_rows"]


def test_the_alert_rules_pass_their_tests() -> None:
    rules = DEPLOY / "prometheus"

    promtool("check", "rules", rules / "alerts.yml")
    promtool("test", "rules", rules / "alerts_test.yml")


@pytest.mark.parametrize("file", ["prometheus/alerts.yml", "grafana/tasktrail.json"])
def test_rules_and_dashboard_name_metrics_that_exist(busy: Engine, file: str) -> None:
    content = (DEPLOY / file).read_text()
    if file.endswith(".json"):
        content = "\n".join(
            target["expr"] for panel in json.loads(content)["panels"] for target in panel.get("targets", ())
        )

    named = set(re.findall(r"\btasktrail_\w+", content))

    assert named
    assert named <= samples(read(busy)).keys()


def test_every_metric_is_described(busy: Engine) -> None:
    reference = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
    described = set(re.findall(r"`(tasktrail_\w+)`", reference))

    exposed = {name.removesuffix("_bucket") for name in samples(read(busy))}

    assert described == {name for name in exposed if not name.endswith(("_gcount", "_gsum"))}
