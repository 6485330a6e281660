"""Every exception of tasktrail.

::

    TasktrailError
    ├── ConfigurationError           a setting, a decorator or a registry entry is wrong
    │   └── UnknownDomain            no domain of that name is registered
    ├── Unavailable                  a server cannot be reached
    │   ├── DatabaseUnavailable
    │   └── BrokerUnavailable
    ├── ReadTimeout                  a read took longer than it may
    ├── SchemaOutdated               the database lacks tables or columns this version needs
    ├── EmbeddedError                an embedded server cannot be started or stopped
    ├── InvalidField                 one field of the input is not acceptable
    ├── TrackingError                an operation on one tracking row was refused
    │   ├── TrackingNotFound         there is no such row
    │   ├── DuplicateTracking        a row with this natural key is already there
    │   ├── WrongState               the row is in a state that forbids the operation
    │   ├── NotDue                   the row waits for its due time
    │   └── FencedOut                the attempt was superseded; its write is stale
    ├── MigrationError               a step of a migration was refused, or did not come through
    │   ├── MigrationBusy            somebody else is at it
    │   ├── MigrationPaused          somebody asked for a pause
    │   ├── PlanRefused              the plan does not fit the tables that are there
    │   ├── WrongPhase               the step is out of order
    │   ├── GateClosed               a condition of the step is not met
    │   ├── DirectionTurned          the other side has become the truth
    │   ├── StepInterrupted          the database ended the step
    │   └── ErrorBudgetExceeded      more rows failed than may fail
    ├── AttemptLost                  an attempt ended without a word from its body
    │   ├── WorkerLost               its process died
    │   ├── LeaseExpired             its machine is silent
    │   └── TimeLimit                it was killed for taking too long
    ├── WaitFor                      raised by a job: run again when other rows have come so far
    ├── RetryIn                      raised by a job: try again after n seconds
    └── GiveUp                       raised by a job: never try this again

The docstring of an exception is its default message; what it knows is in its attributes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Literal

ERROR_TEXT_LIMIT = 8 * 1024
"""Largest stored error text, in bytes of UTF-8 (DESIGN section 4)."""


class TasktrailError(Exception):
    """Something went wrong in tasktrail."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[object, ...]]:
        """Survive pickling, with which a worker process hands an error to its parent."""
        return _rebuilt, (type(self), self.args, dict(vars(self)))


class ConfigurationError(TasktrailError):
    """The configuration of tasktrail is not usable."""


class UnknownDomain(ConfigurationError):
    """No domain of that name is registered."""

    def __init__(self, domain: str, known: Iterable[str] = ()) -> None:
        self.domain = domain
        self.known = tuple(sorted(known))
        super().__init__(
            f"no domain is called {domain!r}; registered: {', '.join(self.known) or 'none'}",
        )


class Unavailable(TasktrailError):
    """A server cannot be reached."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached: is it running, and is TASKTRAIL_DATABASE_URL right?"""


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached: is it running, and is TASKTRAIL_BROKER_URL right?"""


class ReadTimeout(TasktrailError):
    """A read took longer than it may, or than a replica could wait with what the primary had removed.

    Attributes:
        seconds: how long it may take; ``None`` when a replica ended it.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        super().__init__(
            "the replica ended a read that kept it from following the primary; read again, or raise "
            "max_standby_streaming_delay there"
            if seconds is None
            else f"a read took longer than {seconds:g} s and was given up; narrow the filter or the period"
        )


class SchemaOutdated(TasktrailError):
    """The database schema is older than this version of tasktrail: apply the pending migrations."""


class EmbeddedError(TasktrailError):
    """An embedded server cannot be started or stopped."""


class InvalidField(TasktrailError):
    """A field has a value that cannot be accepted."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        self.value = value
        self.reason = reason
        super().__init__(f"{field}: {reason} (got {_shown(value)})")


class TrackingError(TasktrailError):
    """An operation on a tracking row was refused."""

    def __init__(self, domain: str, tracking_id: int, message: str | None = None) -> None:
        self.domain = domain
        self.tracking_id = tracking_id
        super().__init__(f"{domain} {tracking_id}: {message or inspect.getdoc(type(self))}")


class TrackingNotFound(TrackingError):
    """there is no such tracking row"""


class DuplicateTracking(TrackingError):
    """a tracking row with this natural key is already there"""

    def __init__(self, domain: str, tracking_id: int, key: dict[str, object], status: str) -> None:
        self.key = key
        self.status = status
        shown = ", ".join(f"{name}={value}" for name, value in key.items())
        super().__init__(domain, tracking_id, f"already tracks {shown}; it is {status}")


class WrongState(TrackingError):
    """the row is in a state that forbids the operation"""

    def __init__(
        self,
        domain: str,
        tracking_id: int,
        operation: str,
        status: str,
        allowed: Iterable[str],
    ) -> None:
        self.operation = operation
        self.status = status
        self.allowed = tuple(allowed)
        super().__init__(
            domain,
            tracking_id,
            f"cannot {operation}: the row is {status}, it would have to be {' or '.join(self.allowed)}",
        )


class NotDue(TrackingError):
    """the row waits and has no due time yet"""

    def __init__(self, domain: str, tracking_id: int, due: datetime | None, seconds: float | None) -> None:
        self.due = due
        self.seconds = seconds
        when = None if due is None else f"is due at {due.isoformat()}, in {seconds:.1f} s"
        super().__init__(domain, tracking_id, when)


class FencedOut(TrackingError):
    """the attempt was superseded, so its write is stale"""

    def __init__(self, domain: str, tracking_id: int, operation: str, status: str) -> None:
        self.operation = operation
        self.status = status
        super().__init__(
            domain,
            tracking_id,
            f"stale {operation} rejected: this attempt no longer owns the row, which is {status} now",
        )


class MigrationError(TasktrailError):
    """A step of the migration did not come through."""


class MigrationBusy(MigrationError):
    """Somebody else is at it."""

    def __init__(self, migration: str, doing: str, holder: str) -> None:
        self.migration = migration
        self.doing = doing
        self.holder = holder
        super().__init__(f"{migration}: cannot {doing} while somebody else does ({holder})")


class MigrationPaused(MigrationError):
    """Somebody asked the copying to pause; go on with `tasktrail migrate resume`."""


class PlanRefused(MigrationError):
    """The plan does not fit the tables that are there."""

    def __init__(self, migration: str, problems: Iterable[str]) -> None:
        self.migration = migration
        self.problems = tuple(problems)
        super().__init__(f"the plan {migration} does not fit this database: {'; '.join(self.problems)}")


class WrongPhase(MigrationError):
    """The step is out of order."""

    def __init__(self, migration: str, step: str, phase: str, next_command: str) -> None:
        self.migration = migration
        self.step = step
        self.phase = phase
        self.next_command = next_command
        super().__init__(
            f"{migration}: cannot {step} now, the migration is {phase}; go on with `{next_command}`"
        )


class GateClosed(MigrationError):
    """A condition of the step is not met."""

    def __init__(self, migration: str, step: str, reasons: Iterable[str]) -> None:
        self.migration = migration
        self.step = step
        self.reasons = tuple(reasons)
        super().__init__(f"{migration}: the gate to {step} is closed: {'; '.join(self.reasons)}")


class DirectionTurned(MigrationError):
    """Another side has become the truth meanwhile; nothing was carried over in the old direction."""


class StepInterrupted(MigrationError):
    """The database ended the step."""

    def __init__(self, command: str, reason: str) -> None:
        self.command = command
        self.reason = reason
        super().__init__(
            f"interrupted: {reason.rstrip('.')}. What was committed before is kept, the rest was undone; "
            f"go on with `{command}`"
        )


class ErrorBudgetExceeded(MigrationError):
    """More rows failed than may fail."""

    def __init__(self, table: str, failed: int, budget: int, examples: Iterable[str]) -> None:
        self.table = table
        self.failed = failed
        self.budget = budget
        self.examples = tuple(examples)
        super().__init__(
            f"{table}: {failed} rows made their transform fail, {budget} may; e.g. "
            f"{'; '.join(self.examples)}. "
            "Change the rule, or raise --error-budget to have them quarantined"
        )


class AttemptLost(TasktrailError):
    """The attempt ended without a word from its body."""


class WorkerLost(AttemptLost):
    """The worker process ended while it worked on the row."""


class LeaseExpired(AttemptLost):
    """No heartbeat came for longer than the lease."""


class TimeLimit(AttemptLost):
    """The attempt ran longer than its hard time limit."""


class WaitFor(TasktrailError):
    """The job waits for other rows.

    Raised by a body, it ends the attempt without counting it, commits what the body wrote in its session,
    and runs the row again when its prerequisites are met. The worker is free meanwhile. Naming no row is
    refused: the body would run again at once, for ever.
    """

    def __init__(
        self, after: Iterable[object], *, if_unmet: Literal["cancel", "wait", "proceed"] = "proceed"
    ) -> None:
        self.after = tuple(after)
        if not self.after:
            raise InvalidField("after", self.after, "names no row to wait for")
        self.if_unmet = if_unmet
        super().__init__(f"waits for {len(self.after)} other rows")


class RetryIn(TasktrailError):
    """The job asked to be tried again later."""

    def __init__(self, seconds: float, message: str | None = None) -> None:
        if not 0 <= seconds < math.inf:
            raise InvalidField("seconds", seconds, "a delay is a number of seconds, 0 or more")
        self.seconds = seconds
        super().__init__(message or f"asked to be tried again in {seconds:g} s")


class GiveUp(TasktrailError):
    """The job asked never to be tried again."""


def describe(error: BaseException) -> str:
    """Return "Class: message", the form in which an error is stored in a row.

    PostgreSQL text holds neither NUL nor lone surrogates, so both are replaced by U+FFFD; a text over
    ``ERROR_TEXT_LIMIT`` bytes is cut and says so.

    Args:
        error: what the attempt raised.

    Returns:
        The text, never empty.
    """
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  # an error that breaks while it explains itself is an error all the same
        return name
    return clean_text(f"{name}: {message}" if message else name)


def clean_text(text: str, limit: int = ERROR_TEXT_LIMIT) -> str:
    """Return ``text`` in a form PostgreSQL stores, at most ``limit`` bytes of UTF-8 long.

    Args:
        text: any string, also one with NUL characters or lone surrogates.
        limit: largest length of the result, in bytes.

    Returns:
        The same text where it was storable and short enough.
    """
    encoded = text.replace("\x00", "\ufffd").encode("utf-8", "surrogatepass")
    storable = encoded.decode("utf-8", "replace")
    encoded = storable.encode("utf-8")
    if len(encoded) <= limit:
        return storable
    note = f" … [cut, {len(encoded)} bytes]"
    room = limit - len(note.encode("utf-8"))
    if room < 0:
        return encoded[:limit].decode("utf-8", "ignore")
    return encoded[:room].decode("utf-8", "ignore") + note


def _rebuilt(
    kind: type[TasktrailError], arguments: tuple[object, ...], attributes: Mapping[str, object]
) -> TasktrailError:
    error = kind.__new__(kind)  # not called: a subclass's __init__ takes something else than the message
    error.args = arguments
    vars(error).update(attributes)
    return error


def _shown(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
