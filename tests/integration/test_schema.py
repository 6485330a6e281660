"""The tables as the database has them: built by the models, built by a migration, and checked at start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import IntegrityError

from tasktrail import SchemaOutdated, Status, schema, tracker
from tasktrail.models import STANDARD_COLUMNS
from tasktrail.registry import Domain, Registry
from tasktrail.schema import v1, v5
from tests.rows import columns
from tests.support import SCHEMA, Base, JobTracking, JobTrackingService, OrderTracking, OrderTrackingService

MakeDatabase = Callable[..., str]
TABLES = ["order_tracking", "job_tracking"]


@pytest.fixture(scope="module")
def modelled(make_database: MakeDatabase) -> Iterator[Engine]:
    """A database whose tables come from the models' metadata."""
    engine = create_engine(make_database())
    with engine.begin() as db:
        db.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        Base.metadata.create_all(db)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def migrated(make_database: MakeDatabase) -> Iterator[Engine]:
    """A database whose tables come from a migration, written as a user would write it."""
    engine = create_engine(make_database())
    with engine.begin() as db:
        upgrade(Operations(MigrationContext.configure(db)))
    yield engine
    engine.dispose()


def upgrade(op: Operations) -> None:
    v1.upgrade(op, schema=SCHEMA)
    v1.create_tracking_table(
        op,
        "order_tracking",
        domain="order",
        schema=SCHEMA,
        items=[
            sa.Column("day", sa.Date, nullable=False),
            sa.Column("currency", sa.String(3), nullable=False),
            sa.Column("tags", ARRAY(sa.String(5))),
            sa.Column("done", sa.Integer, server_default=sa.text("0"), nullable=False),
            sa.Column("total", sa.Integer, server_default=sa.text("0"), nullable=False),
            sa.Column("amount", sa.Numeric(10, 2)),
            sa.Column("seen_at", sa.DateTime(timezone=True)),
            sa.Column("details", JSONB),
            sa.Column("urgent", sa.Boolean),
            sa.UniqueConstraint("day", "currency", name="uq_order"),
        ],
    )
    v1.create_tracking_table(
        op,
        "job_tracking",
        domain="job",
        schema=SCHEMA,
        items=[sa.Column("payload", sa.String(100), server_default="", nullable=False)],
    )
    for domain in ("order", "job"):
        table = f"{domain}_tracking"
        v5.add_failure_group(op, table, schema=SCHEMA)
        v5.create_indexes(op, table, domain=domain, schema=SCHEMA, concurrently=False)


DESCRIPTIONS = {
    "columns": """
        SELECT ordinal_position, column_name, data_type, udt_name, character_maximum_length,
               numeric_precision, numeric_scale, datetime_precision, is_nullable, column_default,
               is_identity, identity_generation, is_generated, generation_expression
          FROM information_schema.columns
         WHERE table_schema = :schema AND table_name = :name ORDER BY ordinal_position""",
    "constraints": """
        SELECT conname, contype::text, convalidated, pg_get_constraintdef(oid)
          FROM pg_constraint WHERE conrelid = CAST(:qualified AS regclass) ORDER BY conname""",
    "indexes": """
        SELECT indexname, indexdef FROM pg_indexes
         WHERE schemaname = :schema AND tablename = :name ORDER BY indexname""",
    "table": """
        SELECT relkind::text, relpersistence::text, reloptions, relrowsecurity
          FROM pg_class WHERE oid = CAST(:qualified AS regclass)""",
}


def described(engine: Engine, what: str, table: str) -> list[dict[str, Any]]:
    names = {"schema": SCHEMA, "name": table, "qualified": f"{SCHEMA}.{table}"}
    query = text(DESCRIPTIONS[what])
    wanted = {name: names[name] for name in query._bindparams}
    with engine.connect() as db:
        return [dict(row) for row in db.execute(query, wanted).mappings()]


@pytest.mark.parametrize("what", DESCRIPTIONS)
@pytest.mark.parametrize("table", TABLES)
def test_models_and_migrations_make_the_same_table(
    modelled: Engine, migrated: Engine, table: str, what: str
) -> None:
    expected = described(migrated, what, table)

    assert len(expected) >= 1
    assert expected == described(modelled, what, table)


STANDARD = {
    "id": ("bigint", None, "NO", None),
    "status": ("character varying", 20, "NO", "'PENDING'::character varying"),
    "created_at": ("timestamp with time zone", None, "NO", "now()"),
    "updated_at": ("timestamp with time zone", None, "NO", "now()"),
    "started_at": ("timestamp with time zone", None, "YES", None),
    "completed_at": ("timestamp with time zone", None, "YES", None),
    "error_message": ("text", None, "YES", None),
    "attempts": ("integer", None, "NO", "0"),
    "max_attempts": ("integer", None, "NO", "3"),
    "celery_task_id": ("character varying", 255, "YES", None),
    "next_attempt_at": ("timestamp with time zone", None, "YES", "now()"),
    "heartbeat_at": ("timestamp with time zone", None, "YES", None),
    "worker": ("character varying", 255, "YES", None),
    "dispatched_at": ("timestamp with time zone", None, "YES", None),
    "attempt_log": ("jsonb", None, "NO", "'[]'::jsonb"),
    "failure_group": ("uuid", None, "YES", None),
}
"""Names, types and defaults that the plan fixes (DESIGN section 4)."""


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_the_standard_columns_of_the_plan(migrated: Engine, table: str) -> None:
    found = {
        column["column_name"]: (
            column["data_type"],
            column["character_maximum_length"],
            column["is_nullable"],
            column["column_default"],
        )
        for column in described(migrated, "columns", table)
        if column["column_name"] in STANDARD_COLUMNS
    }

    assert found == STANDARD


@pytest.mark.parametrize("table", TABLES)
def test_the_id_counts_by_itself_and_comes_first(migrated: Engine, table: str) -> None:
    first = described(migrated, "columns", table)[0]

    assert (first["column_name"], first["is_identity"], first["identity_generation"]) == (
        "id",
        "YES",
        "BY DEFAULT",
    )


@pytest.mark.parametrize(("table", "domain"), [("order_tracking", "order"), ("job_tracking", "job")])
def test_every_table_has_the_indexes_of_the_plan_and_partial_ones_for_live_rows(
    migrated: Engine, table: str, domain: str
) -> None:
    on = f"ON {SCHEMA}.{table} USING btree"
    expected = {
        f"idx_{domain}_status": f"{on} (status)",
        f"idx_{domain}_dates": f"{on} (created_at, completed_at)",
        f"idx_{domain}_due": f"{on} (next_attempt_at) WHERE ((status)::text = 'PENDING'::text)",
        f"idx_{domain}_leased": f"{on} (heartbeat_at) WHERE ((status)::text = 'PROCESSING'::text)",
        f"idx_{domain}_ended": f"{on} (completed_at) WHERE (completed_at IS NOT NULL)",
        f"idx_{domain}_failed": (
            f"{on} (completed_at, failure_group, id) WHERE ((status)::text = 'FAILED'::text)"
        ),
        f"idx_{domain}_failure_group": f"{on} (failure_group, id) WHERE ((status)::text = 'FAILED'::text)",
        f"idx_{domain}_stopped": (
            f"{on} (status, id) WHERE ((status)::text = ANY ((ARRAY['FAILED'::character varying, "
            "'CANCELLED'::character varying])::text[]))"
        ),
    }

    found = {row["indexname"]: row["indexdef"] for row in described(migrated, "indexes", table)}

    assert expected == {
        name: definition.partition(f"{name} ")[2] for name, definition in found.items() if name in expected
    }


@pytest.mark.parametrize(("table", "domain"), [("order_tracking", "order"), ("job_tracking", "job")])
def test_the_constraints_are_named_after_the_domain(migrated: Engine, table: str, domain: str) -> None:
    names = {row["conname"] for row in described(migrated, "constraints", table) if row["contype"] == "c"}

    assert names == {f"ck_{domain}_status", f"ck_{domain}_attempts"}


@pytest.mark.parametrize("database", ["modelled", "migrated"])
def test_a_row_of_domain_columns_alone_is_a_pending_row_due_now(
    request: pytest.FixtureRequest, database: str
) -> None:
    engine: Engine = request.getfixturevalue(database)
    insert = "INSERT INTO tracking.order_tracking (day, currency) VALUES (current_date, 'EUR') RETURNING id"
    with engine.begin() as db:
        order = db.scalar(text(insert))

    row = columns(engine, order, OrderTracking)
    with engine.begin() as db:
        claim = tracker.claim(db, OrderTracking, order, celery_task_id="task 1", worker="w1")

    assert (row["status"], row["attempts"], row["max_attempts"]) == (Status.PENDING, 0, 3)
    assert (row["attempt_log"], row["done"], row["total"]) == ([], 0, 0)
    assert row["created_at"] == row["updated_at"] == row["next_attempt_at"]
    assert row["created_at"].utcoffset() is not None
    unset = [
        "started_at",
        "completed_at",
        "error_message",
        "celery_task_id",
        "heartbeat_at",
        "worker",
        "dispatched_at",
        "failure_group",
    ]
    assert dict.fromkeys(unset) == {name: row[name] for name in unset}
    assert claim.fence.tracking_id == order


@pytest.mark.parametrize(
    ("assignment", "constraint"),
    [
        ("status = 'RETRYING'", "ck_job_status"),
        ("status = 'pending'", "ck_job_status"),
        ("status = ''", "ck_job_status"),
        ("attempts = -1", "ck_job_attempts"),
        ("max_attempts = 0", "ck_job_attempts"),
    ],
)
def test_the_database_refuses_what_no_row_may_be(migrated: Engine, assignment: str, constraint: str) -> None:
    with migrated.begin() as db:
        job = tracker.create(db, JobTracking, {}).id

    with pytest.raises(IntegrityError) as caught, migrated.begin() as db:
        db.execute(text(f"UPDATE tracking.job_tracking SET {assignment} WHERE id = :id"), {"id": job})

    assert caught.value.orig.diag.constraint_name == constraint


@pytest.mark.parametrize(
    "name", sorted(name for name, (_, _, nullable, _) in STANDARD.items() if nullable == "NO")
)
def test_the_database_refuses_a_row_without_its_state(migrated: Engine, name: str) -> None:
    with pytest.raises(IntegrityError) as caught, migrated.begin() as db:
        db.execute(text(f"INSERT INTO tracking.job_tracking ({name}) VALUES (NULL)"))

    assert caught.value.orig.diag.column_name == name


def test_the_database_refuses_two_rows_of_one_natural_key(migrated: Engine) -> None:
    insert = text("INSERT INTO tracking.order_tracking (day, currency) VALUES ('2001-01-01', 'EUR')")
    with migrated.begin() as db:
        db.execute(insert)

    with pytest.raises(IntegrityError) as caught, migrated.begin() as db:
        db.execute(insert)

    assert caught.value.orig.diag.constraint_name == "uq_order"


def test_every_state_is_allowed_in_the_database(migrated: Engine) -> None:
    with migrated.begin() as db:
        for status in Status:
            db.execute(
                text("INSERT INTO tracking.job_tracking (status) VALUES (:status)"), {"status": status}
            )
        db.rollback()


# The check of a database


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(Domain(name="order", model=OrderTracking, service=OrderTrackingService))
    registry.add(Domain(name="job", model=JobTracking, service=JobTrackingService))
    return registry


@pytest.fixture(scope="module")
def fit(make_database: MakeDatabase, library_template: str) -> Iterator[Engine]:
    engine = create_engine(make_database(library_template))
    yield engine
    engine.dispose()


@pytest.fixture
def db(fit: Engine) -> Iterator[Connection]:
    """A connection to a database that fits; what a test breaks is rolled back."""
    with fit.connect() as db:
        yield db
        db.rollback()


def test_a_database_that_fits_has_no_problems(db: Connection, registry: Registry) -> None:
    assert schema.problems(db, registry, schema=SCHEMA) == []
    schema.require(db, registry, schema=SCHEMA)


def test_an_empty_database_lacks_every_table(make_database: MakeDatabase, registry: Registry) -> None:
    engine = create_engine(make_database())
    with engine.connect() as db:
        found = schema.problems(db, registry, schema=SCHEMA)
        unqualified = schema.problems(db, [], schema=None)
    engine.dispose()

    assert found == [
        "the table tracking.tasktrail_version is missing",
        "the table tracking.order_tracking is missing",
        "the table tracking.job_tracking is missing",
    ]
    assert unqualified == ["the table tasktrail_version is missing"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "DROP TABLE tracking.job_tracking",
            ["the table tracking.job_tracking is missing"],
        ),
        (
            "ALTER TABLE tracking.job_tracking DROP COLUMN attempt_log",
            ["tracking.job_tracking lacks the columns attempt_log"],
        ),
        (
            "ALTER TABLE tracking.order_tracking RENAME COLUMN currency TO money",
            ["tracking.order_tracking lacks the columns currency"],
        ),
        (
            "ALTER TABLE tracking.order_tracking DROP COLUMN day, DROP COLUMN worker",
            ["tracking.order_tracking lacks the columns day, worker"],
        ),
        (
            "ALTER TABLE tracking.order_tracking ADD COLUMN mine int",
            [],
        ),
        (
            "DROP TABLE tracking.tasktrail_version",
            ["the table tracking.tasktrail_version is missing"],
        ),
        (
            "DELETE FROM tracking.tasktrail_version",
            [f"its schema version is unknown, this release needs {schema.HEAD}"],
        ),
        (
            f"DELETE FROM tracking.tasktrail_version WHERE version = {schema.HEAD}",
            [f"its schema version is {schema.VERSIONS[-2].VERSION}, this release needs {schema.HEAD}"],
        ),
        (
            "INSERT INTO tracking.tasktrail_version (version) VALUES (99)",
            [f"its schema version is 99, this release needs {schema.HEAD}"],
        ),
        (
            "ALTER TABLE tracking.tasktrail_version SET SCHEMA public",
            ["the table tracking.tasktrail_version is missing"],
        ),
    ],
)
def test_what_is_missing_is_named(
    db: Connection, registry: Registry, statement: str, expected: list[str]
) -> None:
    db.execute(text(statement))

    assert expected == schema.problems(db, registry, schema=SCHEMA)


def test_everything_that_is_missing_is_named_at_once(db: Connection, registry: Registry) -> None:
    db.execute(text("DELETE FROM tracking.tasktrail_version"))
    db.execute(text("DROP TABLE tracking.order_tracking"))
    db.execute(text("ALTER TABLE tracking.job_tracking DROP COLUMN payload"))

    with pytest.raises(SchemaOutdated) as caught:
        schema.require(db, registry, schema=SCHEMA)

    assert str(caught.value) == (
        f"the database is not ready: its schema version is unknown, this release needs {schema.HEAD}; "
        "the table tracking.order_tracking is missing; "
        "tracking.job_tracking lacks the columns payload. Apply the pending migrations first"
    )


def test_the_library_needs_no_schema_of_its_own(make_database: MakeDatabase) -> None:
    engine = create_engine(make_database())
    with engine.begin() as db:
        upgrade_all(db, None)

        assert schema.problems(db, [], schema=None) == []
        assert sa.inspect(db).has_table("tasktrail_version", schema="public")
    engine.dispose()


def upgrade_all(db: Connection, name: str | None) -> None:
    for version in schema.VERSIONS:
        version.upgrade(Operations(MigrationContext.configure(db)), schema=name)


@pytest.mark.parametrize("name", ["library", "Job-tracking"])  # the second has to be quoted
def test_every_upgrade_can_be_taken_back(make_database: MakeDatabase, name: str) -> None:
    engine = create_engine(make_database())
    with engine.begin() as db:
        upgrade_all(db, name)
        for version in reversed(schema.VERSIONS):
            found = schema.problems(db, [], schema=name)
            assert found == ([] if version.VERSION == schema.HEAD else [outdated(version.VERSION)])
            version.downgrade(Operations(MigrationContext.configure(db)), schema=name)

        assert sa.inspect(db).get_table_names(schema=name) == []
    engine.dispose()


def outdated(version: int) -> str:
    return f"its schema version is {version}, this release needs {schema.HEAD}"
