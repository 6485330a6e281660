"""Where the library tells a tracer what it does; by itself it traces nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tasktrail.celery.messages import Message
from tasktrail.celery.run import Run


class Tracer:
    """Is told when messages are sent and attempts are made; this one does nothing with it.

    ``tasktrail.otel.OpenTelemetryTracer`` makes spans of it. None of the methods may raise.

    Attributes:
        headers: names of the headers that ``sending`` may return, all of them Python names.
    """

    headers: tuple[str, ...] = ()

    def sending(self, messages: Sequence[Message]) -> AbstractContextManager[Mapping[str, str]]:
        """Surround the sending of messages; returns headers that go with each of them.

        Args:
            messages: of one or more domains, at least one.
        """
        del messages
        return nullcontext({})

    def attempt(
        self, run: Run[Any], celery_task_id: str, headers: Mapping[str, Any]
    ) -> AbstractContextManager[None]:
        """Surround one attempt, from the claim of its row to its end; what it raises is its outcome.

        Args:
            run: the attempt.
            celery_task_id: the id its message came under.
            headers: those of ``headers`` that came with the message.
        """
        del run, celery_task_id, headers
        return nullcontext()


UNTRACED = Tracer()
