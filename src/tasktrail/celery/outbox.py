"""Publishes after the caller's commit, and only what was really committed, savepoints included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from tasktrail.celery.messages import Message

Send: TypeAlias = Callable[[list[Message]], object]

_KEY = "tasktrail.outbox"


@dataclass(slots=True)
class Outbox:
    """The messages that wait for one session's commit, each with the transaction its row was written in."""

    waiting: list[tuple[SessionTransaction | None, Message, Send]] = field(default_factory=list)

    def committed(self, session: Session) -> None:
        """Send everything once the outermost transaction is committed; a released savepoint is not that."""
        if session.in_nested_transaction():
            return
        waiting, self.waiting = self.waiting, []
        by_sender: dict[Send, list[Message]] = {}
        for _, message, send in waiting:
            by_sender.setdefault(send, []).append(message)
        for send, messages in by_sender.items():
            send(messages)

    def rolled_back(self, _: Session, ended: SessionTransaction) -> None:
        """Forget what was written in a transaction that was rolled back, or in a savepoint below it."""
        self.waiting = [entry for entry in self.waiting if not _is_within(entry[0], ended)]

    def ended(self, _: Session, ended: SessionTransaction) -> None:
        """Forget what was neither committed nor rolled back: a session that is closed says neither."""
        if ended.parent is None:
            self.waiting = []


def send_after_commit(session: Session, message: Message, send: Send) -> None:
    """Send a message once the session's present transaction is committed; never if it is rolled back.

    Args:
        session: the session the row was just written with.
        message: what to send.
        send: sends a list of messages; must not raise when the broker is down.
    """
    outbox: Outbox | None = session.info.get(_KEY)
    if outbox is None:
        outbox = session.info[_KEY] = Outbox()
        event.listen(session, "after_commit", outbox.committed)
        event.listen(session, "after_soft_rollback", outbox.rolled_back)
        event.listen(session, "after_transaction_end", outbox.ended)
    outbox.waiting.append((session.get_nested_transaction() or session.get_transaction(), message, send))


def _is_within(transaction: SessionTransaction | None, ended: SessionTransaction) -> bool:
    while transaction is not None:
        if transaction is ended:
            return True
        transaction = transaction.parent
    return False
