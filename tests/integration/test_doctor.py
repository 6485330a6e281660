"""``tasktrail doctor``: each check finds the fault it is for, and a healthy installation has none."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

from tasktrail import DatabaseUnavailable, Settings, Status, TrackedTask, Trail, doctor, schema, tracker
from tasktrail.cli.app import app
from tasktrail.doctor import Finding, Severity, examine
from tasktrail.embedded import EmbeddedPostgres
from tasktrail.partitions import EPOCH, make_ahead, today
from tasktrail.settings import sqlalchemy_url
from tests.commands import Outcome, run_here
from tests.rows import add_job, add_job_in, claim
from tests.support import (
    SCHEMA,
    JobTracking,
    JobTrackingService,
    OrderTrackingService,
    ParcelTracking,
    ParcelTrackingService,
    create_tables,
)
from tests.upkeep import shift

NOWHERE = "redis://127.0.0.1:1/0"
IMPATIENT = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
"""Kombu's options for a broker that is not there, so that a test need not wait for it."""


@dataclass
class Installation:
    """An application with two tracked tasks on a database of its own."""

    trail: Trail
    job: TrackedTask[Any]
    engine: Engine

    def execute(self, *statements: str) -> None:
        """Change the database as an accident or a careless hand would."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            for statement in statements:
                db.execute(text(statement))

    def findings(self) -> list[Finding]:
        """Return what is wrong, but for the fsync that the server of the tests does without."""
        return [finding for finding in examine(self.trail) if finding.subject != "fsync"]

    def finds(self, check: str, *subjects: str) -> list[str]:
        """Assert that one check, and no other, finds these subjects; return what it says about them."""
        found = self.findings()
        assert [(finding.check, finding.subject) for finding in found] == [
            (check, subject) for subject in subjects
        ]
        return [finding.message for finding in found]


Install = Callable[..., Installation]


@pytest.fixture
def install(engine: Engine, redis_url: str) -> Iterator[Install]:
    """Puts installations together that differ in their settings."""
    made: list[Installation] = []

    def make(
        *,
        broker_url: str = redis_url,
        settings: dict[str, Any] | None = None,
        celery: dict[str, Any] | None = None,
        **more: Any,
    ) -> Installation:
        url = engine.url.render_as_string(hide_password=False)
        loaded = Settings.load(database_url=url, broker_url=broker_url, **(settings or {}))
        application = Celery(set_as_current=False)
        application.conf.update(celery or {})
        trail = Trail(application, loaded, schema=SCHEMA, **{"legacy_modules": ["tests"], **more})
        job: TrackedTask[Any] = trail.task(JobTrackingService, name="tests.job")(lambda _: None)
        trail.task(OrderTrackingService, name="tests.order")(lambda _: None)
        made.append(Installation(trail, job, engine))
        return made[-1]

    yield make
    for one in made:
        one.trail.engines.dispose()
        one.trail.app.close()


@pytest.fixture
def healthy(install: Install) -> Installation:
    """An installation with nothing wrong."""
    return install()


def test_a_healthy_installation_has_no_finding(healthy: Installation) -> None:
    for status in Status:
        add_job_in(healthy.engine, status)

    assert healthy.findings() == []


def test_a_task_that_is_not_tracked_is_named_until_it_is_declared_with_a_reason(
    healthy: Installation,
) -> None:
    def work() -> None: ...

    for name in ("shop.mail", "shop.clean_up"):
        healthy.trail.app.task(work, name=name, shared=False)

    messages = healthy.finds("untracked tasks", "shop.clean_up", "shop.mail")
    healthy.trail.leave_untracked("shop.mail", reason="its mails are tracked by the mail server")

    assert 'trail.leave_untracked("shop.clean_up", reason=...)' in messages[0]
    healthy.finds("untracked tasks", "shop.clean_up")


def test_the_tasks_of_another_application_in_the_process_are_not_its_own(
    healthy: Installation, install: Install
) -> None:
    other = Trail(Celery(set_as_current=False), healthy.trail.settings, schema=SCHEMA)
    theirs: TrackedTask[Any] = other.task(JobTrackingService, name="other.job")(lambda _: None)
    twin = install()

    assert healthy.findings() == twin.findings() == []
    assert "other.job" not in healthy.trail.app.tasks
    assert theirs.celery_task.app is other.app
    assert twin.job.celery_task.app is twin.trail.app


@pytest.fixture
def partitioned(install: Install) -> Installation:
    """An installation with a partitioned domain, whose partitions are made."""
    installation = install()
    installation.trail.task(ParcelTrackingService, name="tests.parcel")(lambda _: None)
    with installation.engine.begin() as db:
        make_ahead(db, ParcelTracking)
    return installation


def test_a_partitioned_table_that_is_kept_well_has_no_finding(partitioned: Installation) -> None:
    with partitioned.engine.begin() as db:
        tracker.create(db, ParcelTracking, {"day": date(2001, 1, 1), "currency": "EUR"})

    assert partitioned.findings() == []


@pytest.mark.parametrize(
    ("accident", "message"),
    [
        ("ALTER TABLE tracking.parcel_tracking DETACH PARTITION tracking.{tomorrow}", "has no partition for"),
        ("DROP TABLE tracking.parcel_tracking_default", "has no default partition"),
        (
            "INSERT INTO tracking.parcel_tracking (id, day, currency) VALUES (5, now(), 'EUR')",
            "has 1 row in its default partition",
        ),
        ("DROP TRIGGER tasktrail_keys ON tracking.parcel_tracking", "lacks the trigger tasktrail_keys"),
        (
            "ALTER TABLE tracking.parcel_tracking DISABLE TRIGGER tasktrail_keys_truncate",
            "lacks the trigger tasktrail_keys_truncate, or it is disabled",
        ),
    ],
)
def test_a_partitioned_table_that_is_not_kept_is_named(
    partitioned: Installation, accident: str, message: str
) -> None:
    with partitioned.engine.connect() as db:
        tomorrow = EPOCH + timedelta(days=today(db) + 1)
    partitioned.execute(accident.format(tomorrow=f"parcel_tracking_p{tomorrow:%Y%m%d}"))

    (found,) = partitioned.finds("partitions", "tracking.parcel_tracking")

    assert message in found


def test_the_table_of_the_keys_is_needed_with_its_constraint(partitioned: Installation) -> None:
    partitioned.execute("ALTER TABLE tracking.parcel_tracking_keys DROP CONSTRAINT uq_parcel")

    assert partitioned.finds("constraints and indexes", "tracking.parcel_tracking") == [
        "lacks uq_parcel; add it in a migration"
    ]


@pytest.mark.parametrize(
    ("accident", "problem"),
    [
        ("ALTER TABLE tracking.job_tracking DROP COLUMN worker", "lacks the columns worker"),
        ("ALTER TABLE tracking.job_tracking DROP COLUMN payload", "lacks the columns payload"),
        (
            f"DELETE FROM tracking.tasktrail_version WHERE version = {schema.HEAD}",
            f"its schema version is {schema.VERSIONS[-2].VERSION}",
        ),
        ("DELETE FROM tracking.tasktrail_version", "its schema version is unknown"),
        ("DROP TABLE tracking.tasktrail_version", "the table tracking.tasktrail_version is missing"),
        ("DROP TABLE tracking.job_tracking", "the table tracking.job_tracking is missing"),
    ],
)
def test_what_a_migration_should_have_made_is_missed(
    healthy: Installation, accident: str, problem: str
) -> None:
    healthy.execute(accident)

    (message,) = healthy.finds("schema", "database")

    assert problem in message
    assert message.endswith("; apply the pending migrations")


def test_a_missing_column_does_not_hide_the_other_findings(healthy: Installation) -> None:
    add_job(healthy.engine)
    shift(healthy.engine, -3600, "next_attempt_at")
    healthy.execute(
        "ALTER TABLE tracking.job_tracking DROP COLUMN heartbeat_at",  # its index goes with it
        "INSERT INTO tracking.order_tracking (day, currency, next_attempt_at)"
        " VALUES ('2026-11-01', 'EUR', now() - interval '1 hour')",
    )

    found = [(finding.check, finding.subject) for finding in healthy.findings()]

    assert found == [
        ("constraints and indexes", "tracking.job_tracking"),
        ("schema", "database"),
        ("stuck rows", "order"),
    ]


@pytest.mark.parametrize(
    ("accident", "table", "name"),
    [
        ("ALTER TABLE {table} DROP CONSTRAINT {name}", "tracking.job_tracking", "ck_job_status"),
        ("ALTER TABLE {table} DROP CONSTRAINT {name}", "tracking.job_tracking", "ck_job_attempts"),
        ("ALTER TABLE {table} DROP CONSTRAINT {name}", "tracking.order_tracking", "uq_order"),
        ("DROP INDEX tracking.{name}", "tracking.job_tracking", "idx_job_status"),
        ("DROP INDEX tracking.{name}", "tracking.job_tracking", "idx_job_dates"),
        ("DROP INDEX tracking.{name}", "tracking.order_tracking", "idx_order_due"),
        ("DROP INDEX tracking.{name}", "tracking.order_tracking", "idx_order_leased"),
    ],
)
def test_a_missing_constraint_or_index_is_named(
    healthy: Installation, accident: str, table: str, name: str
) -> None:
    healthy.execute(accident.format(table=table, name=name))

    (message,) = healthy.finds("constraints and indexes", table)

    assert message == f"lacks {name}; add it in a migration"


def test_an_index_left_invalid_is_named_but_not_that_of_a_table_elsewhere(healthy: Installation) -> None:
    healthy.execute("CREATE SCHEMA other", "CREATE TABLE other.job_tracking (payload text)")
    for table in ("tracking.job_tracking", "other.job_tracking"):
        healthy.execute(f"INSERT INTO {table} (payload) VALUES ('twice'), ('twice')")
        with pytest.raises(IntegrityError):
            healthy.execute(f"CREATE UNIQUE INDEX CONCURRENTLY once ON {table} (payload)")

    (message,) = healthy.finds("constraints and indexes", "tracking.once")

    assert message.startswith("is INVALID, left by an interrupted CREATE INDEX CONCURRENTLY")


def test_a_legacy_table_that_is_still_there_is_named(install: Install) -> None:
    one = install(legacy_tables=["task_status", "public.etf_updates", "old.gone", "gone"])
    one.execute("CREATE TABLE task_status (id int)", "CREATE TABLE public.etf_updates (id int)")

    one.finds("legacy tables", "public.etf_updates", "task_status")


def test_what_refers_to_a_legacy_table_in_the_database_is_named(install: Install) -> None:
    one = install(legacy_tables=["task_status", "gone"])
    one.execute(
        "CREATE TABLE task_status (id int PRIMARY KEY, parent int REFERENCES task_status, state text)",
        "CREATE TABLE note (task int REFERENCES task_status)",
        "CREATE VIEW unfinished AS SELECT id FROM task_status WHERE state = 'pending'",
        "CREATE FUNCTION forget(int) RETURNS void LANGUAGE sql AS 'DELETE FROM task_status WHERE id = $1'",
        "CREATE FUNCTION of_others() RETURNS text LANGUAGE sql AS 'SELECT ''my_task_status''::text'",
    )

    found = [finding for finding in one.findings() if finding.check == "legacy references"]

    assert {finding.subject for finding in found} == {"task_status"}
    assert [finding.message.partition(" refers")[0] for finding in found] == [
        "the foreign key note_task_fkey of note",
        "the function forget(integer)",
        "the view unfinished",
    ]


@pytest.fixture
def shop_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of which one part may know the legacy table."""
    package = tmp_path / "oldshop"
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "jobs.py").write_text(
        "def pack(_): ...\n\n\nQUERY = 'SELECT * FROM task_status'\nmy_task_status2 = 1\n"
    )
    (package / "models.py").write_text("class TaskStatus: ...\n")
    (package / "migrations" / "__init__.py").write_text("TABLE = 'task_status'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return package


def test_source_that_names_a_legacy_table_is_named_but_for_what_may(
    install: Install, shop_package: Path
) -> None:
    one = install(
        legacy_tables=["public.task_status", "old.job_tracking"],
        legacy_modules=["oldshop.migrations", "tests"],
    )
    one.trail.app.task(import_module("oldshop.jobs").pack, name="oldshop.pack", shared=False)
    one.trail.leave_untracked("oldshop.pack", reason="a test")

    messages = one.finds("legacy references", f"{shop_package}/jobs.py:4", f"{shop_package}/models.py:1")

    assert messages == [
        "names task_status, which tracking replaces",
        "names TaskStatus, which tracking replaces",
    ]


@pytest.mark.parametrize(
    ("settings", "subject", "words"),
    [
        ({"task_always_eager": True}, "task_always_eager", "use it in tests only"),
        ({"task_acks_late": True}, "task_acks_late", "without task_reject_on_worker_lost"),
        (
            {"broker_transport_options": {"visibility_timeout": 600}},
            "visibility_timeout",
            "of 600 s is below the longest ETA of 900 s",
        ),
        ({"broker_transport_options": {"visibility_timeout": 0}}, "visibility_timeout", "of 0 s is below"),
        ({"task_annotations": {"*": {"acks_late": False}}}, "tests.job.acks_late", "must be True"),
    ],
)
def test_a_celery_setting_that_loses_or_doubles_work_is_named(
    install: Install, settings: dict[str, Any], subject: str, words: str
) -> None:
    messages = {finding.subject: finding.message for finding in install(celery=settings).findings()}

    assert words in messages.pop(subject)
    assert messages.keys() <= {"tests.order.acks_late"}


@pytest.mark.parametrize(
    "settings",
    [
        {"task_acks_late": True, "task_reject_on_worker_lost": True},
        {"broker_transport_options": {"visibility_timeout": 900}},
    ],
)
def test_a_celery_setting_that_is_safe_is_left_alone(install: Install, settings: dict[str, Any]) -> None:
    assert install(celery=settings).findings() == []


def test_an_eta_horizon_above_the_brokers_own_visibility_timeout_is_named(install: Install) -> None:
    one = install(settings={"eta_horizon": 7200})

    (message,) = one.finds("Celery settings", "visibility_timeout")

    assert "of 3600 s is below the longest ETA of 7200 s" in message


def test_a_visibility_timeout_left_in_the_settings_of_rabbitmq_means_nothing(install: Install) -> None:
    options = {"visibility_timeout": 1, **IMPATIENT}
    one = install(broker_url="amqp://guest@127.0.0.1:1//", celery={"broker_transport_options": options})

    one.finds("Celery settings", "broker")  # nothing listens there


@pytest.mark.parametrize(
    ("option", "value"),
    [("acks_late", False), ("reject_on_worker_lost", False), ("ignore_result", False), ("max_retries", 3)],
)
def test_an_option_of_a_tracked_task_that_was_changed_is_named(
    healthy: Installation, option: str, value: object
) -> None:
    setattr(healthy.job.celery_task, option, value)

    (message,) = healthy.finds("Celery settings", f"tests.job.{option}")

    assert message.endswith(f"for a tracked task, it is {value!r}")


def test_a_broker_that_cannot_be_reached_is_a_finding_and_the_rest_is_still_examined(
    install: Install,
) -> None:
    celery = {"broker_transport_options": IMPATIENT}
    one = install(broker_url=NOWHERE, legacy_tables=["task_status"], celery=celery)
    one.execute("CREATE TABLE task_status (id int)")

    broker, legacy = one.findings()

    assert (broker.subject, legacy.subject) == ("broker", "task_status")
    assert "127.0.0.1:1" in broker.message


@pytest.mark.parametrize("seconds", [-5.0, 5.0])
def test_a_clock_that_differs_from_the_servers_is_a_warning(
    healthy: Installation, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    class Skewed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(UTC) + timedelta(seconds=seconds)

    monkeypatch.setattr(doctor, "datetime", Skewed)

    (finding,) = healthy.findings()

    assert (finding.check, finding.severity) == ("clock skew", Severity.WARNING)
    assert "differs from the database server's by " in finding.message


def test_a_server_that_does_not_keep_what_it_committed_is_named(healthy: Installation) -> None:
    database = healthy.engine.url.database
    healthy.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")

    found = [finding for finding in examine(healthy.trail) if finding.check == "durability"]

    assert [finding.subject for finding in found] == [
        "fsync",
        "synchronous_commit",
    ]  # the tests do without it
    assert "loses completed jobs" in found[0].message


def test_rows_that_are_stuck_are_counted(healthy: Installation) -> None:
    forgotten = [add_job(healthy.engine) for _ in range(3)]
    silent = [claim(healthy.engine, add_job(healthy.engine)).fence.tracking_id for _ in range(2)]
    shift(healthy.engine, -600, "next_attempt_at", ids=forgotten)
    shift(healthy.engine, -600, "heartbeat_at", ids=silent)

    messages = healthy.finds("stuck rows", "job", "job")

    assert sorted(message.split(";")[0] for message in messages) == [
        "2 rows are PROCESSING with an expired lease",
        "3 rows are PENDING, due and never dispatched",
    ]


def test_rows_that_wait_for_good_reason_are_not_stuck(healthy: Installation) -> None:
    sent, later, held, due = (add_job(healthy.engine) for _ in range(4))
    with healthy.engine.begin() as db:
        tracker.mark_dispatched(db, JobTracking, [sent])
    shift(healthy.engine, -600, "next_attempt_at", ids=[sent])
    shift(healthy.engine, 600, "next_attempt_at", ids=[later])
    shift(healthy.engine, -100, "next_attempt_at", ids=[due])  # for less than twice the 60 s of the settings
    by_hand, late = (claim(healthy.engine, add_job(healthy.engine)).fence.tracking_id for _ in range(2))
    shift(healthy.engine, -100, "heartbeat_at", ids=[late])
    healthy.execute(
        f"UPDATE tracking.job_tracking SET next_attempt_at = NULL WHERE id = {held}",
        f"UPDATE tracking.job_tracking SET heartbeat_at = NULL WHERE id = {by_hand}",
    )

    assert healthy.findings() == []


def test_the_application_adds_checks_of_its_own(install: Install) -> None:
    def rates(db: Any) -> Iterator[tuple[str, str]]:
        if db.scalar(text("SELECT count(*) FROM tracking.job_tracking")) == 0:
            yield "rates", "there are none"

    one = install(checks=[rates])

    assert one.finds("application", "rates") == ["there are none"]


def test_errors_come_before_warnings(healthy: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CLOCK_SKEW", -1.0)
    healthy.execute("DELETE FROM tracking.tasktrail_version")

    assert [finding.severity for finding in healthy.findings()] == [Severity.ERROR, Severity.WARNING]


def test_without_a_database_there_is_nothing_to_examine(redis_url: str) -> None:
    settings = Settings.load(database_url="postgresql://nobody@127.0.0.1:1/none", broker_url=redis_url)

    with pytest.raises(DatabaseUnavailable):
        examine(Trail(Celery(set_as_current=False), settings))


# The command

CLINIC = """
from celery import Celery
from tasktrail import Settings, Trail
from tests.support import SCHEMA, AsyncJobTrackingService, JobTrackingService, OrderTrackingService

legacy = {"legacy_tables": ["task_status"], "legacy_modules": ["tests"]}
trail = Trail(Celery("clinic"), Settings.load(), schema=SCHEMA, **legacy)
for name, service in (("job", JobTrackingService), ("order", OrderTrackingService)):
    trail.task(service, name=f"clinic.{name}")(lambda run: None)
"""


@pytest.fixture
def clinic(project_folder: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[None]:
    """An application in the working directory, for the command line."""
    (project_folder / "clinic.py").write_text(CLINIC, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TASKTRAIL_BROKER_URL", redis_url)
    monkeypatch.setenv("TASKTRAIL_APP", "clinic:trail")
    yield
    sys.modules.pop("clinic", None)


@pytest.fixture(scope="module")
def durable_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database on a server that keeps what it commits, unlike that of the other tests."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("durable"))
    engine = create_engine(sqlalchemy_url(server.start()))
    create_tables(engine)
    yield engine.url.render_as_string(hide_password=False)
    engine.dispose()
    server.stop("immediate")


@pytest.mark.usefixtures("clinic")
def test_the_command_finds_nothing_wrong_and_exits_with_0(
    durable_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", durable_url)

    assert run_here(app, "doctor") == Outcome(0, "nothing is wrong\n", "")
    assert run_here(app, "doctor", "--json") == Outcome(0, '{"healthy": true, "findings": []}\n', "")


@pytest.mark.usefixtures("clinic")
def test_the_command_shows_a_line_for_each_finding_and_exits_with_2(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    with engine.begin() as db:
        db.execute(text("CREATE TABLE task_status (id int)"))

    shown, printed = run_here(app, "doctor"), run_here(app, "doctor", "--json")

    assert (shown.code, shown.out.splitlines(), shown.err) == (
        2,
        [
            "error durability: fsync is off: a crash of the server loses completed jobs; switch it on",
            "error legacy tables: task_status is still there; finish its migration, archive it and drop it",
            "2 findings",
        ],
        "",
    )
    assert (printed.code, printed.err) == (2, "")
    report = json.loads(printed.out)
    assert report["healthy"] is False
    assert report["findings"][1] == {
        "check": "legacy tables",
        "severity": "error",
        "subject": "task_status",
        "message": "is still there; finish its migration, archive it and drop it",
    }


@pytest.mark.usefixtures("clinic")
def test_the_command_says_in_one_line_that_there_is_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKTRAIL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")

    assert run_here(app, "doctor", "--json").complains("127.0.0.1:1", "TASKTRAIL_DATABASE_URL")
