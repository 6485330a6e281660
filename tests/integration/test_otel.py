"""Spans: what is enqueued, sent, attempted again and ended is one trace; several at once are linked."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_tracer
from redis import Redis
from sqlalchemy import Engine, text

from tasktrail import GiveUp, RetryPolicy, Settings, Trail, WaitFor, tracker
from tasktrail.otel import OpenTelemetryTracer
from tests.support import SCHEMA, AsyncJobTrackingService, JobTrackingService

BOTH = pytest.mark.parametrize("kind", ["job", "async_job"])


@dataclass
class Traced:
    """Tracked tasks whose spans are kept, and whose messages are worked on in this process."""

    trail: Trail
    queue: Redis
    engine: Engine
    provider: TracerProvider
    kept: InMemorySpanExporter
    script: list[Callable[[Any], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        retry = RetryPolicy(base=0.001)
        self.job = self.trail.task(JobTrackingService, name="tests.job", retry=retry)(self._job)
        self.async_job = self.trail.task(AsyncJobTrackingService, name="tests.async_job", retry=retry)(
            self._async_job
        )

    def _job(self, run: Any) -> None:
        with get_tracer("the application", tracer_provider=self.provider).start_as_current_span("work"):
            if self.script:
                self.script.pop(0)(run)

    async def _async_job(self, run: Any) -> None:
        self._job(run)

    def deliver(self) -> list[int]:
        """Work on all messages on the queue, as a worker does; return the rows."""
        done = []
        while (raw := self.queue.rpop(self.trail.app.conf.task_default_queue)) is not None:
            message = json.loads(raw)  # type: ignore[arg-type]
            headers = message["headers"]
            (tracking_id,), _, _ = json.loads(b64decode(message["body"]))
            own = {name: headers[name] for name in OpenTelemetryTracer.headers if name in headers}
            task = self.trail.app.tasks[headers["task"]]
            task.apply(args=(tracking_id,), task_id=headers["id"], retries=headers["retries"], headers=own)
            done.append(tracking_id)
        return done

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the ended spans of a name, in the order of their beginning."""
        found = [span for span in self.kept.get_finished_spans() if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)


@pytest.fixture
def traced(
    database_url: str, redis_url: str, engine: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Traced]:
    settings = Settings.load(database_url=database_url, broker_url=redis_url, home=tmp_path)
    celery = Celery("traced")
    celery.conf.task_default_queue = request.node.name
    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trail = Trail(celery, settings, schema=SCHEMA, tracer=OpenTelemetryTracer(provider))
    with Redis(unix_socket_path=redis_url.removeprefix("redis+socket://")) as queue:
        yield Traced(trail, queue, engine, provider, kept)
    trail._parts.loop.run(trail.engines.asynchronous.dispose(), on_start=lambda _: None)
    trail.engines.dispose()
    celery.close()


@BOTH
def test_enqueue_attempts_and_outcome_are_one_trace_of_the_request_that_asked(
    traced: Traced, kind: str
) -> None:
    def fail(_: Any) -> None:
        raise TimeoutError("no answer from postgres://app:hunter2@db/shop")

    traced.script = [fail]
    with get_tracer("the application", tracer_provider=traced.provider).start_as_current_span("POST /orders"):
        row = getattr(traced, kind).enqueue()
    traced.deliver()
    traced.deliver()

    first, second = traced.spans(f"attempt {kind}")
    sent, sent_again = traced.spans(f"send {kind}")
    (request,) = traced.spans("POST /orders")
    work, work_again = traced.spans("work")
    parents = [(sent, request), (first, sent), (work, first), (sent_again, first), (second, sent_again)]
    assert all(span.parent and span.parent.span_id == parent.context.span_id for span, parent in parents)
    assert work_again.parent is not None
    assert work_again.parent.span_id == second.context.span_id
    assert {span.context.trace_id for span in traced.kept.get_finished_spans()} == {request.context.trace_id}
    assert (sent.kind, first.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert [span.attributes["tasktrail.outcome"] for span in (first, second)] == ["retried", "completed"]
    assert [span.attributes["tasktrail.attempt"] for span in (first, second)] == [1, 2]
    assert {span.attributes["tasktrail.id"] for span in (first, second, sent)} == {row.id}
    assert {span.attributes["messaging.message.id"] for span in (first, second)} == {row.celery_task_id}
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "TimeoutError: no answer from postgres://app:[masked]@db/shop"
    assert second.status.is_ok


def test_attempts_at_what_was_enqueued_together_are_traces_of_their_own_linked_to_it(traced: Traced) -> None:
    traced.job.enqueue_many({} for _ in range(3))
    traced.deliver()

    (sent,) = traced.spans("send job")
    attempts = traced.spans("attempt job")
    assert sent.attributes["messaging.batch.message_count"] == 3
    assert len({span.context.trace_id for span in (sent, *attempts)}) == 4
    assert [[link.context.span_id for link in span.links] for span in attempts] == [
        [sent.context.span_id]
    ] * 3


def give_up(_: Any) -> None:
    raise GiveUp("not today")


def take_over(traced: Traced) -> Callable[[Any], None]:
    def lose(run: Any) -> None:
        with traced.engine.begin() as db:
            db.execute(text(f"UPDATE {run.model.__table__.fullname} SET status = 'CANCELLED'"))

    return lose


@pytest.mark.parametrize(
    ("script", "outcome", "is_fine"),
    [
        (lambda _: give_up, "failed", False),
        (take_over, "superseded", False),
    ],
)
def test_the_outcome_is_what_became_of_the_attempt(
    traced: Traced, script: Any, outcome: str, is_fine: bool
) -> None:
    traced.script = [script(traced)]
    traced.job.enqueue()
    traced.deliver()

    (attempt,) = traced.spans("attempt job")
    assert attempt.attributes["tasktrail.outcome"] == outcome
    assert (attempt.status.status_code is not StatusCode.ERROR) is is_fine


def test_a_job_that_waits_for_others_is_deferred_which_is_no_error(traced: Traced) -> None:
    def wait(run: Any) -> None:
        raise WaitFor([traced.async_job.enqueue(run.session)])

    traced.script = [wait]
    traced.job.enqueue()
    traced.deliver()

    (attempt,) = traced.spans("attempt job")
    (sent,) = traced.spans("send async_job")
    assert attempt.attributes["tasktrail.outcome"] == "deferred"
    assert attempt.status.is_unset
    assert sent.context.trace_id == attempt.context.trace_id


def test_a_message_that_maintenance_sends_begins_a_trace_and_names_its_row(traced: Traced) -> None:
    with traced.engine.begin() as db:
        row = tracker.create(db, traced.job.domain.model, {})
        db.execute(text("UPDATE tracking.job_tracking SET created_at = created_at - interval '1 h', "
                        "next_attempt_at = next_attempt_at - interval '1 h'"))  # fmt: skip
    with traced.trail.engines.pooled() as db:
        traced.trail.maintenance().tick(db)

    (sent,) = traced.spans("send job")
    assert (sent.parent, sent.attributes["tasktrail.id"]) == (None, row.id)


def test_a_broker_that_is_away_is_an_error_of_the_span_that_sends(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    row = traced.job.enqueue()
    traced.kept.clear()
    monkeypatch.setattr(traced.trail.app, "producer_or_acquire", refuse)
    with traced.trail.engines.sync.begin() as db:
        db.execute(text("UPDATE tracking.job_tracking SET dispatched_at = NULL"))
    assert not traced.trail.publisher.send(traced.job._messages([row], {}))

    (sent,) = traced.spans("send job")
    assert sent.status.status_code is StatusCode.ERROR
