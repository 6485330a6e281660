"""Sending the Celery messages of rows: the message is a hint and carries only the row's id."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from amqp.exceptions import AMQPError, MessageNacked
from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]  # 5.7
from kombu.utils.url import maybe_sanitize_url

from tasktrail import tracker
from tasktrail.celery.messages import Message
from tasktrail.celery.tracing import UNTRACED, Tracer
from tasktrail.engines import Engines
from tasktrail.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable
from tasktrail.models import BaseTaskTracking

BROKER_ERRORS: Final = (OperationalError, BatchPublishError, OSError, AMQPError, MessageNacked)
"""What is raised when messages cannot be sent. Kombu makes an ``OperationalError`` of what may pass; what
RabbitMQ refuses (a password, a queue that is there with other arguments) stays an ``AMQPError``."""

logger = logging.getLogger(__name__)


class Publisher:
    """Sends messages and notes in their rows that they went out."""

    def __init__(self, app: Celery, engines: Engines, tracer: Tracer = UNTRACED) -> None:
        self._app = app
        self._engines = engines
        self._tracer = tracer
        self._has_answered = False

    def require_broker(self) -> None:
        """Make sure the broker answers before a row is written for it.

        Raises:
            BrokerUnavailable: it does not; the message says where it was looked for.
            ConfigurationError: the transport cannot make a connection of its URL and options.
        """
        with self._errors(), self._settings_errors():
            if not self._has_answered:
                # A pooled connection would be tried for seconds before it says that nobody is there.
                with self._app.connection_for_write() as fresh:
                    fresh.ensure_connection(max_retries=1, interval_start=0, timeout=5)
            self._has_answered = False
            with self._app.producer_or_acquire() as producer:
                connection: Any = producer.connection
                ask = connection.ensure(
                    producer, lambda: _ask(producer), max_retries=1, interval_start=0, interval_step=0
                )
                ask()
            self._has_answered = True

    def send(self, messages: Sequence[Message]) -> bool:
        """Send messages over one connection, in a pipeline on Redis, and mark their rows as dispatched.

        A broker or database that fails now is no error of the caller, whose transaction is committed:
        the rows stay marked as not dispatched, and maintenance sends them.

        Args:
            messages: what to send.

        Returns:
            Whether all of them went out and are marked.
        """
        return self.transmit(messages) and self._mark(messages)

    def transmit(self, messages: Sequence[Message]) -> bool:
        """Send messages over one connection without marking their rows; for rows that are marked already.

        Args:
            messages: what to send.

        Returns:
            Whether all of them went out; if not, some may have.
        """
        if not messages:
            return True
        try:
            with (
                self._errors(),
                self._tracer.sending(messages) as headers,
                self._app.producer_or_acquire() as producer,
                batch(producer, len(messages)),
            ):
                declared: set[str] = set()
                for message in messages:
                    options = message.options()
                    if headers:
                        options["headers"] = dict(headers)
                    if message.task.name in declared:
                        options["declare"] = []  # the first message declared the queue for those after it
                    declared.add(message.task.name)
                    message.task.apply_async(args=(message.tracking_id,), producer=producer, **options)
        except BrokerUnavailable as error:
            logger.warning("%d rows wait for maintenance to dispatch them: %s", len(messages), error)
            return False
        return True

    def _mark(self, sent: Sequence[Message]) -> bool:
        ids: dict[type[BaseTaskTracking], list[int]] = {}
        for message in sent:
            ids.setdefault(message.model, []).append(message.tracking_id)
        try:
            with self._engines.pooled("relaxed") as db:
                for model, of_model in ids.items():
                    tracker.mark_dispatched(db, model, of_model)
        except DatabaseUnavailable as error:
            logger.warning("%d rows were dispatched but not marked: %s", len(sent), error)
            return False
        return True

    @contextmanager
    def _settings_errors(self) -> Iterator[None]:
        """Name the setting when a transport stumbles over a URL or an option; Celery checks neither.

        Raises:
            ConfigurationError: in place of the transport's error.
        """
        try:
            yield
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"TASKTRAIL_BROKER_URL or the broker's transport options cannot be used: {error}"
            ) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BROKER_ERRORS as error:
            where = _shown(self._app.connection_for_write())
            raise BrokerUnavailable(
                f"the broker at {where} cannot be used: {str(error).rstrip('.')}. "
                "Is it running, and is TASKTRAIL_BROKER_URL right?"
            ) from error


def _shown(connection: Connection) -> str:
    """Return the URL of a connection without its password; Celery shows one even where there is none."""
    uri = maybe_sanitize_url(connection.as_uri())
    if not connection.password and connection.transport_cls != "redis+socket":
        user = connection.userid or ""
        uri = uri.replace(f"//{user}:**@", f"//{user}@" if user else "//", 1)
    return uri


def _ask(producer: Producer) -> None:
    """Make the broker answer: with a PING where it is Redis, else by opening a channel."""
    channel: Any = producer.channel
    if hasattr(channel, "client"):
        channel.client.ping()
    else:
        channel.connection.channel().close()


def batch(producer: Producer, size: int) -> AbstractContextManager[Any]:
    """Collect what is published in the block and send it at once, where the transport can; else do nothing.

    Args:
        producer: publishes the messages.
        size: how many there are.
    """
    return producer.batch(max_size=size) if size > 1 else nullcontext()  # type: ignore[attr-defined]  # kombu 5.7
