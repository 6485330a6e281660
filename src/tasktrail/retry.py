"""When a failed attempt is repeated: a pure rule, with the clock and the dice passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias

from tasktrail.errors import AttemptLost, ConfigurationError, GiveUp, InvalidField, RetryIn

ErrorClasses: TypeAlias = tuple[type[BaseException], ...]

SECONDS_PER_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt is repeated.

    Attributes:
        seconds: the delay before the next attempt.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class NoRetry:
    """The row ends FAILED.

    Attributes:
        reason: why no further attempt is made.
    """

    reason: str


Decision: TypeAlias = Retry | NoRetry


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long after a failure an attempt is repeated.

    The delay before retry ``n`` (0 for the first) is ``base * factor**n``, at most ``cap``. The seed API
    fixes the defaults: 60 s, doubled each time, three attempts in all (DESIGN section 5).

    Attributes:
        max_attempts: how many attempts may fail before the row is FAILED; new rows get this number.
        base: delay before the first retry, in seconds.
        factor: what each further delay is multiplied by.
        cap: longest delay, in seconds; also bounds what a server or an error asks for.
        jitter: draw the delay evenly from 0 to its value ("full jitter"), so that jobs that failed
            together do not come back together.
        retry_on: errors of the body worth a retry; anything else ends the row. A lost attempt, where the
            body raised nothing, is always worth one.
        give_up_on: errors never worth one; they win over ``retry_on``, and may name ``WorkerLost``,
            ``LeaseExpired`` or ``TimeLimit``.
    """

    max_attempts: int = 3
    base: float = 60.0
    factor: float = 2.0
    cap: float = SECONDS_PER_DAY
    jitter: bool = False
    retry_on: ErrorClasses = (Exception,)
    give_up_on: ErrorClasses = ()

    def __post_init__(self) -> None:
        """Refuse numbers with which no schedule can be made."""
        if self.max_attempts < 1:
            raise ConfigurationError(f"max_attempts: must be at least 1 (got {self.max_attempts})")
        if not 0 <= self.base < math.inf:
            raise ConfigurationError(f"base: a delay is a number of seconds, 0 or more (got {self.base})")
        if not 1 <= self.factor < math.inf:
            raise ConfigurationError(f"factor: delays may not shrink, so at least 1 (got {self.factor})")
        if not self.base <= self.cap < math.inf:
            raise ConfigurationError(
                f"cap: a number of seconds, not below base, {self.base} (got {self.cap})"
            )

    def delay(self, retries: int) -> float:
        """Return the delay before a retry, without jitter.

        Args:
            retries: how many retries came before this one; 0 for the first.

        Returns:
            The delay in seconds.
        """
        if not self.base:
            return 0.0
        try:
            return min(self.base * self.factor**retries, self.cap)
        except OverflowError:
            return self.cap

    def decide(
        self,
        error: BaseException,
        *,
        failures: int,
        max_attempts: int,
        now: datetime,
        random: Callable[[], float],
        asked: float | None = None,
    ) -> Decision:
        """Decide what follows a failed attempt.

        What the error itself asks for goes first: ``GiveUp``, ``InvalidField`` (the same input would be
        refused again) or ``retry_after = False`` means never,
        ``RetryIn`` or a numeric ``retry_after`` means "in so many seconds", and the ``Retry-After`` header
        of an HTTP response hanging on the error (RFC 9110, section 10.2.3) means the same. None of
        these adds attempts: when the last one is used up, the row is FAILED.

        Args:
            error: what the attempt raised.
            failures: how many attempts have failed, this one included.
            max_attempts: how many may fail before the row ends.
            now: current time, aware; only used to read a ``Retry-After`` date.
            random: returns a number in [0, 1), e.g. ``random.random``.
            asked: seconds that the body asked for in another way, if it did.

        Returns:
            ``Retry`` with the delay, or ``NoRetry`` with the reason.
        """
        said = requested_delay(error, now)
        if said is False:
            return NoRetry("the error asks never to be retried")
        asked = said if asked is None else asked
        if isinstance(error, self.give_up_on):
            return NoRetry(f"{type(error).__name__} is not worth a retry")
        if failures >= max_attempts:
            return NoRetry(f"all {max_attempts} attempts failed")
        if asked is not None:
            return Retry(min(asked, self.cap))
        if not isinstance(error, (*self.retry_on, AttemptLost)):
            return NoRetry(f"{type(error).__name__} is not among the errors worth a retry")
        delay = self.delay(failures - 1)
        return Retry(delay * random() if self.jitter else delay)


def requested_delay(error: BaseException, now: datetime) -> float | Literal[False] | None:
    """Return what an error itself says about a retry.

    Args:
        error: what the attempt raised.
        now: current time, aware.

    Returns:
        Seconds, ``False`` for "never", or ``None`` when it says nothing.
    """
    if isinstance(error, GiveUp | InvalidField):
        return False
    if isinstance(error, RetryIn):
        return error.seconds
    attribute = getattr(error, "retry_after", None)
    if attribute is False:
        return False
    if isinstance(attribute, int | float) and attribute is not True:
        return _seconds(attribute)
    headers = getattr(getattr(error, "response", None), "headers", None)
    header = headers.get("Retry-After") if headers is not None and hasattr(headers, "get") else None
    return parse_retry_after(header, now) if isinstance(header, str) else None


def parse_retry_after(header: str, now: datetime) -> float | None:
    """Read a ``Retry-After`` header: seconds or an HTTP date (RFC 9110, section 10.2.3).

    Args:
        header: the field value.
        now: current time, aware.

    Returns:
        Seconds from ``now``, not negative; ``None`` when the value is neither form.
    """
    text = header.strip()
    if text.isascii() and text.isdigit():
        return _seconds(float(text))  # which takes any number of digits, as int does not
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _seconds(value: float) -> float | None:
    """Return a delay as a float, which a long integer may not fit; ``None`` for what is no delay."""
    try:
        return float(value) if 0 <= value < math.inf else None
    except OverflowError:
        return None
