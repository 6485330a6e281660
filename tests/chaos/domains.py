"""What the chaos run works on: two domains of jobs, and tables in which everything that happens is kept."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import BigInteger, DateTime, Engine, Float, Integer, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasktrail import BaseTaskTracking, BaseTaskTrackingService, NaturalKey, Progress, TrackingOptions
from tasktrail.schema import VERSIONS

SCHEMA: Final = "tracking"
CHAOS: Final = "chaos"


class Kind(StrEnum):
    """How a job behaves."""

    QUICK = "quick"
    SLOW = "slow"
    PROGRESS = "progress"
    FAILS_FIRST = "fails first"
    STUCK = "stuck"  # runs into its time limit, at the first attempt
    ALWAYS_FAILS = "always fails"
    GIVES_UP = "gives up"
    PLAIN = "plain"  # no session: completed by a statement of its own


class Base(DeclarativeBase):
    """The tables of the chaos run."""


class _Plan:
    """What a job is told: the inputs of both domains."""

    key: Mapped[str] = mapped_column(String(60))
    kind: Mapped[str] = mapped_column(String(20), server_default=Kind.QUICK.value)
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    seconds: Mapped[float] = mapped_column(Float, server_default=text("0"))
    early: Mapped[bool] = mapped_column(server_default=text("true"))
    done: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    total: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class ChaosJob(BaseTaskTracking, _Plan, Base):
    """Jobs whose bodies are functions."""

    __tablename__ = "chaos_job"
    __tracking__ = TrackingOptions(
        domain="chaos_job",
        schema=SCHEMA,
        natural_key=NaturalKey(("key",), "uq_chaos_job"),
        progress=Progress(done="done", total="total"),
    )


class ChaosJobService(BaseTaskTrackingService[ChaosJob]):
    """The service of the functions."""

    model = ChaosJob


class ChaosCoroutine(BaseTaskTracking, _Plan, Base):
    """Jobs whose bodies are coroutines."""

    __tablename__ = "chaos_coroutine"
    __tracking__ = TrackingOptions(
        domain="chaos_coroutine",
        schema=SCHEMA,
        natural_key=NaturalKey(("key",), "uq_chaos_coroutine"),
        progress=Progress(done="done", total="total"),
    )


class ChaosCoroutineService(BaseTaskTrackingService[ChaosCoroutine]):
    """The service of the coroutines."""

    model = ChaosCoroutine


class _About:
    """Names the row that an entry is about."""

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    domain: Mapped[str] = mapped_column(String(63))
    tracking_id: Mapped[int | None] = mapped_column(BigInteger, index=True)


def _moment(**options: Any) -> Any:
    return mapped_column(DateTime(timezone=True), **options)


class Effect(_About, Base):
    """What a job did to the world, written in the transaction that completes it. Nothing keeps it unique."""

    __tablename__ = "effect"
    __table_args__ = ({"schema": CHAOS},)

    key: Mapped[str] = mapped_column(String(60))
    claim: Mapped[datetime] = _moment()
    pid: Mapped[int]


class Evidence(_About, Base):
    """What the workers saw, from files that no restart touches: messages, starts and ends of bodies."""

    __tablename__ = "evidence"
    __table_args__ = ({"schema": CHAOS},)

    event: Mapped[str] = mapped_column(String(10))  # message, start or end
    at: Mapped[datetime] = _moment()
    pid: Mapped[int]
    claim: Mapped[datetime | None] = _moment()


class Ordered(_About, Base):
    """What the producers were told about each row that they asked for."""

    __tablename__ = "ordered"
    __table_args__ = ({"schema": CHAOS},)

    key: Mapped[str] = mapped_column(String(60), index=True)
    how: Mapped[str] = mapped_column(String(20))
    outcome: Mapped[str] = mapped_column(String(20))  # acknowledged or rolled back
    after: Mapped[str | None] = mapped_column(String(60))  # the key of the job it waits for


class Cancelled(_About, Base):
    """The cancellations that were asked for; unknown: the answer was lost."""

    __tablename__ = "cancelled"
    __table_args__ = ({"schema": CHAOS},)

    outcome: Mapped[str] = mapped_column(String(20))  # accepted or unknown


class Struck(Base):
    """The blows, with the time at which they fell and that at which all was well again."""

    __tablename__ = "struck"
    __table_args__ = ({"schema": CHAOS},)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    blow: Mapped[str] = mapped_column(String(40))
    detail: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = _moment()
    until: Mapped[datetime] = _moment()


class History(_About, Base):
    """Every change of a row's state or owner, written by a trigger in the transaction that made it."""

    __tablename__ = "history"
    __table_args__ = ({"schema": CHAOS},)

    at: Mapped[datetime] = _moment()
    was: Mapped[str] = mapped_column(String(20))
    became: Mapped[str] = mapped_column(String(20))
    claim_was: Mapped[datetime | None] = _moment()
    claim_became: Mapped[datetime | None] = _moment()
    due: Mapped[datetime | None] = _moment()
    worker: Mapped[str | None] = mapped_column(String(255))


MODELS: Final = (ChaosJob, ChaosCoroutine)

TRIGGER = """
CREATE FUNCTION chaos.remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.history (domain, tracking_id, at, was, became, claim_was, claim_became, due, worker)
    VALUES (TG_ARGV[0], NEW.id, clock_timestamp(), OLD.status, NEW.status, OLD.started_at, NEW.started_at,
            OLD.next_attempt_at, NEW.worker);
    RETURN NULL;
END $$
"""


def create_tables(engine: Engine) -> None:
    """Create everything, with views over the rows of both domains and over their logged attempts."""
    with engine.begin() as db:
        operations = Operations(MigrationContext.configure(db))
        for version in VERSIONS:
            version.upgrade(operations, schema=SCHEMA)
        db.execute(text("CREATE SCHEMA chaos"))
        Base.metadata.create_all(db)
        db.execute(text(TRIGGER))
        columns = ", ".join(column.name for column in ChaosJob.__table__.columns)
        tables = []
        for model in MODELS:
            name = model.__tracking__.domain
            tables.append(f"SELECT '{name}'::text AS domain, {columns} FROM tracking.{name}")
            db.execute(
                text(
                    f"CREATE TRIGGER remember AFTER UPDATE ON tracking.{name} FOR EACH ROW WHEN ("
                    " OLD.status IS DISTINCT FROM NEW.status"
                    " OR OLD.started_at IS DISTINCT FROM NEW.started_at"
                    f") EXECUTE FUNCTION chaos.remember('{name}')"
                )
            )
        db.execute(text(f"CREATE VIEW chaos.row AS {' UNION ALL '.join(tables)}"))
        db.execute(
            text(
                "CREATE VIEW chaos.attempt AS SELECT r.domain, r.id, r.kind, r.failures, e.place,"
                " (e.entry ->> 'number')::int AS number, (e.entry ->> 'start')::timestamptz AS \"start\","
                " (e.entry ->> 'end')::timestamptz AS \"end\", e.entry ->> 'outcome' AS outcome,"
                " e.entry ->> 'error' AS error, e.entry ->> 'worker' AS worker"
                " FROM chaos.row r, jsonb_array_elements(r.attempt_log) WITH ORDINALITY AS e (entry, place)"
            )
        )
