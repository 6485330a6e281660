"""Spans of OpenTelemetry for what jobs do; the extra ``otel`` brings what it needs.

::

    trail = Trail(app, Settings.load(), tracer=OpenTelemetryTracer())

Names and attributes follow the semantic conventions for messaging (v1.37), as far as they have some:

- ``send <domain>``, of kind PRODUCER: messages go out. It is a child of what surrounds it: a request that
  enqueues a job, or the attempt before, which is to be repeated.
- ``attempt <domain>``, of kind CONSUMER: an attempt, from the claim of its row to its end. It is a child of
  the span that sent its message, or linked to it where that sent several. ``tasktrail.outcome`` says how it
  ended.

So a job's attempts are one trace, unless maintenance had to send its message: then a trace begins anew.
``tasktrail.domain`` and ``tasktrail.id`` are on each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry
from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tasktrail.celery.messages import Message
from tasktrail.celery.run import Run
from tasktrail.celery.tracing import Tracer
from tasktrail.errors import FencedOut, WaitFor, describe
from tasktrail.masking import mask_text

TOGETHER: Final = "tasktrail_together"
"""The header of messages that were sent together with others."""

_CONTEXT: Final = TraceContextTextMapPropagator()


class OpenTelemetryTracer(Tracer):
    """Makes spans of what is sent and what is attempted."""

    headers = ("traceparent", "tracestate", TOGETHER)

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Take a provider.

        Args:
            provider: makes the spans; by default the global one, which may also be set later.
        """
        self._tracer = trace.get_tracer("tasktrail", tracer_provider=provider)

    @contextmanager
    def sending(self, messages: Sequence[Message]) -> Iterator[Mapping[str, str]]:
        """Surround the sending of messages with a span; see ``Tracer``."""
        first = messages[0]
        domain = first.model.__tracking__.domain
        attributes = _attributes("send", domain, first.task.name)
        if len(messages) == 1:
            attributes["tasktrail.id"] = first.tracking_id
            attributes["messaging.message.id"] = first.celery_task_id or ""
        else:
            attributes["messaging.batch.message_count"] = len(messages)
        with self._tracer.start_as_current_span(
            f"send {domain}", kind=SpanKind.PRODUCER, attributes=attributes, record_exception=False,
            set_status_on_exception=False,
        ) as span:  # fmt: skip
            headers: dict[str, str] = {}
            _CONTEXT.inject(headers)
            if headers and len(messages) > 1:
                headers[TOGETHER] = str(len(messages))
            with _outcome(span):
                yield headers

    @contextmanager
    def attempt(self, run: Run[Any], celery_task_id: str, headers: Mapping[str, Any]) -> Iterator[None]:
        """Surround one attempt with a span; see ``Tracer``."""
        sent = _CONTEXT.extract({name: str(value) for name, value in headers.items()}, context.Context())
        sender = trace.get_current_span(sent).get_span_context()
        is_together = TOGETHER in headers
        attributes = _attributes("process", run.domain, None) | {
            "tasktrail.id": run.id,
            "tasktrail.attempt": run.number,
            "tasktrail.max_attempts": run.max_attempts,
            "messaging.message.id": celery_task_id,
        }
        with self._tracer.start_as_current_span(
            f"attempt {run.domain}",
            context=context.Context() if is_together else sent,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(sender)] if is_together and sender.is_valid else (),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            with _outcome(span):
                yield
            span.set_attribute("tasktrail.outcome", "completed")


def _attributes(operation: str, domain: str, destination: str | None) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": "celery",
        "messaging.operation.type": operation,
        "tasktrail.domain": domain,
    }
    return attributes if destination is None else {**attributes, "messaging.destination.name": destination}


@contextmanager
def _outcome(span: Span) -> Iterator[None]:
    """Say in a span how what it surrounds ends, with what went wrong; secrets are masked."""
    try:
        yield
    except BaseException as error:
        outcome, cause = _outcome_of(error)
        span.set_attribute("tasktrail.outcome", outcome)
        if cause is not None:
            text = mask_text(describe(cause))
            span.set_status(StatusCode.ERROR, text)
            span.add_event("exception", {"exception.type": type(cause).__name__, "exception.message": text})
        raise


def _outcome_of(error: BaseException) -> tuple[str, BaseException | None]:
    """Return how an attempt ended, and what went wrong, if anything did."""
    if isinstance(error, CeleryRetry):
        return "retried", error.__cause__ or error
    if isinstance(error, Ignore):
        if isinstance(error.__cause__, WaitFor):
            return "deferred", None
        if isinstance(error.__cause__, FencedOut):
            return "superseded", error.__cause__
        return "dropped", None
    if isinstance(error, Reject):
        return "put back", None
    return "failed", error
