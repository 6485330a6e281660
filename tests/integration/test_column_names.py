"""A domain's columns may be named as it likes: no parameter of a statement is taken for one of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine, Integer, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from conftest import MakeDatabase
from tasktrail import (
    BaseTaskTracking,
    ConfigurationError,
    NaturalKey,
    Progress,
    Status,
    TrackingOptions,
    statements,
    sweeps,
    tracker,
)
from tasktrail.models import STANDARD_COLUMNS
from tasktrail.retry import NoRetry, Retry
from tests.rows import columns
from tests.support import SCHEMA, JobTracking, OrderTracking

NOW = datetime(2026, 11, 1, tzinfo=UTC)
VALUES: dict[str, Any] = {
    "_ids": [1],
    "_fence_ids": [1],
    **dict.fromkeys(("_due", "_fence_started_at", "_marked_at", "_reached"), NOW),
    **dict.fromkeys(("_gives_up", "_jitter"), False),
    **dict.fromkeys(("_error", "_note", "_outcome", "_new_worker"), "x"),
    **dict.fromkeys(("_fence_celery_task_id", "_new_celery_task_id"), "task 1"),
    "_fence_celery_task_ids": ["task 1"],
    "_fence_started_ats": [NOW],
}


def built(model: type[BaseTaskTracking], *names: str) -> Iterator[tuple[str, Any]]:
    """Build every statement of a domain; the parameters of those that insert are its columns themselves."""
    given: dict[str, list[Any]] = {
        "model": [model],
        "schema": [SCHEMA],
        "needed": [JobTracking],
        "conditions": [()],
        "names": [names],
        "target": list(Status),
    }
    for module in (statements, sweeps):
        for name, build in vars(module).items():
            is_own = getattr(build, "__module__", None) == module.__name__
            if not is_own or name.startswith(("_", "insert")):
                continue
            for arguments in product(*(given[each] for each in inspect.signature(build).parameters)):
                yield name, build(*arguments)


def parameters_of(statement: Any) -> set[str]:
    """Return the names of the parameters that whoever runs a statement gives."""
    compiled = statement.compile(dialect=PGDialect_psycopg())
    return {name for name, bind in compiled.binds.items() if not bind.unique}


PARAMETERS = {name for _, statement in built(OrderTracking, "day") for name in parameters_of(statement)}
RESEMBLING = sorted({name.lstrip("_") for name in PARAMETERS}.difference(STANDARD_COLUMNS))


class Base(DeclarativeBase):
    """The table of this file."""


class AwkwardTracking(BaseTaskTracking, Base):
    """A domain that names a column like each parameter, but for the underscore."""

    __tablename__ = "awkward_tracking"
    __tracking__ = TrackingOptions(
        domain="awkward",
        schema=SCHEMA,
        natural_key=NaturalKey(("batch",), "uq_awkward"),
        progress=Progress(done="done", total="total"),
    )

    batch: Mapped[int]
    for name in RESEMBLING:
        if name != "batch":
            vars()[name] = mapped_column(Integer)
    del name


@pytest.fixture(scope="module")
def engine(make_database: MakeDatabase, library_template: str) -> Iterator[Engine]:
    """A database with the table of this file."""
    engine = create_engine(make_database(library_template))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_the_parameters_of_all_statements_begin_with_an_underscore() -> None:
    assert len(PARAMETERS) > 30
    assert sorted(name for name in PARAMETERS if not name.startswith("_")) == []


def test_a_column_that_begins_with_an_underscore_is_refused() -> None:
    class Other(DeclarativeBase):
        pass

    with pytest.raises(ConfigurationError, match="hidden_tracking: a column cannot be named _batch"):

        class HiddenTracking(BaseTaskTracking, Other):
            __tablename__ = "hidden_tracking"
            __tracking__ = TrackingOptions(domain="hidden")

            batch: Mapped[int] = mapped_column("_batch")


@pytest.mark.parametrize(
    ("name", "statement"),
    [pytest.param(*one, id=f"{one[0]} {at}") for at, one in enumerate(built(AwkwardTracking, *RESEMBLING))],
)
def test_a_statement_runs_though_columns_are_named_like_its_parameters(
    engine: Engine, name: str, statement: Any
) -> None:
    parameters = {parameter: VALUES.get(parameter, 1) for parameter in parameters_of(statement)}
    if name == "renew_leases_if_owned":
        parameters["_fence_attempts"] = [1]

    with engine.begin() as db:
        db.execute(statement, parameters)


def test_a_job_with_such_columns_runs_to_its_end_and_keeps_what_they_hold(engine: Engine) -> None:
    fields = dict.fromkeys(RESEMBLING, 7)
    with Session(engine) as db, db.begin():
        job = tracker.create(db, AwkwardTracking, fields).id
        tracker.mark_dispatched(db, AwkwardTracking, [job])

        for end in (Retry(0.0), NoRetry("no"), None):
            claimed = tracker.claim(db, AwkwardTracking, job, celery_task_id="task 1", worker="w1")
            assert claimed.inputs == fields
            tracker.heartbeat(db, AwkwardTracking, claimed.fence)
            tracker.progress(db, AwkwardTracking, claimed.fence, done=3)
            tracker.record(db, AwkwardTracking, claimed.fence, {"done": 7, "error": 8})
            tracker.record(db, AwkwardTracking, claimed.fence, {"error": 7})
            if end is None:
                tracker.complete(db, AwkwardTracking, claimed.fence, note="well")
                continue
            tracker.fail(db, AwkwardTracking, claimed.fence, end, error="ValueError: no")
            if isinstance(end, NoRetry):
                tracker.create(db, AwkwardTracking, fields, on_duplicate="restart")
                tracker.cancel(db, AwkwardTracking, job, "nobody wants it")
                tracker.move(db, AwkwardTracking, job, Status.PENDING)

    row = columns(engine, job, AwkwardTracking)
    assert {name: row[name] for name in RESEMBLING} == fields
    assert (row["status"], row["error_message"], row["attempts"]) == ("COMPLETED", "well", 2)
