"""The retry rule: error, count and clock in, decision out."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasktrail import ConfigurationError, GiveUp, InvalidField, RetryIn, RetryPolicy
from tasktrail.errors import WorkerLost
from tasktrail.retry import NoRetry, Retry, parse_retry_after, requested_delay

NOW = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)


def decide(policy: RetryPolicy, error: BaseException, failures: int, dice: float = 0.5) -> Retry | NoRetry:
    return policy.decide(
        error, failures=failures, max_attempts=policy.max_attempts, now=NOW, random=lambda: dice
    )


def with_attributes(error: Exception, **attributes: object) -> Exception:
    vars(error).update(attributes)
    return error


def http_error(**headers: object) -> Exception:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return with_attributes(RuntimeError("503"), response=SimpleNamespace(headers=named))


def test_the_defaults_are_those_of_the_seed_api() -> None:
    policy = RetryPolicy()

    decisions = [decide(policy, ValueError("no"), failures) for failures in (1, 2, 3)]

    assert [Retry(60.0), Retry(120.0), NoRetry("all 3 attempts failed")] == decisions


@pytest.mark.parametrize(
    ("policy", "retries", "expected"),
    [
        (RetryPolicy(), 0, 60.0),
        (RetryPolicy(), 3, 480.0),
        (RetryPolicy(), 10, 61_440.0),
        (RetryPolicy(), 11, 86_400.0),
        (RetryPolicy(), 100_000, 86_400.0),
        (RetryPolicy(base=0), 5, 0.0),
        (RetryPolicy(base=0), 100_000, 0.0),
        (RetryPolicy(base=10, factor=1), 100_000, 10.0),
        (RetryPolicy(base=10, factor=3, cap=50), 1, 30.0),
        (RetryPolicy(base=10, factor=3, cap=50), 2, 50.0),
        (RetryPolicy(base=0.5, factor=1.5), 2, 1.125),
    ],
)
def test_a_delay_grows_by_the_factor_up_to_the_cap(
    policy: RetryPolicy, retries: int, expected: float
) -> None:
    assert expected == policy.delay(retries)


@settings(deadline=None)
@given(
    base=st.floats(0, 1e6),
    factor=st.floats(1, 100),
    more=st.floats(0, 1e6),
    retries=st.integers(0, 10_000),
)
def test_delays_never_shrink_and_never_exceed_the_cap(
    base: float, factor: float, more: float, retries: int
) -> None:
    policy = RetryPolicy(base=base, factor=factor, cap=base + more)

    assert 0 <= policy.delay(retries) <= policy.delay(retries + 1) <= policy.cap


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "max_attempts: must be at least 1 (got 0)"),
        ({"max_attempts": -1}, "max_attempts: must be at least 1 (got -1)"),
        ({"base": -0.1}, "base: a delay is a number of seconds, 0 or more (got -0.1)"),
        ({"base": float("nan")}, "base: a delay is a number of seconds, 0 or more (got nan)"),
        ({"base": float("inf")}, "base: a delay is a number of seconds, 0 or more (got inf)"),
        ({"factor": 0.99}, "factor: delays may not shrink, so at least 1 (got 0.99)"),
        ({"factor": float("nan")}, "factor: delays may not shrink, so at least 1 (got nan)"),
        ({"factor": float("inf")}, "factor: delays may not shrink, so at least 1 (got inf)"),
        ({"base": 10, "cap": 9.9}, "cap: a number of seconds, not below base, 10 (got 9.9)"),
        ({"cap": float("nan")}, "cap: a number of seconds, not below base, 60.0 (got nan)"),
        ({"cap": float("inf")}, "cap: a number of seconds, not below base, 60.0 (got inf)"),
    ],
)
def test_numbers_without_a_schedule_are_refused_by_name(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}$"):
        RetryPolicy(**options)


def test_a_policy_of_a_single_attempt_never_retries() -> None:
    decision = decide(RetryPolicy(max_attempts=1), OSError(), failures=1)

    assert NoRetry("all 1 attempts failed") == decision


def test_a_policy_is_made_of_names_and_shared_so_it_cannot_change() -> None:
    policy = RetryPolicy()

    with pytest.raises(TypeError, match="positional argument"):
        RetryPolicy(5)
    with pytest.raises(FrozenInstanceError):
        policy.max_attempts = 5


@pytest.mark.parametrize(("dice", "expected"), [(0.0, 0.0), (0.25, 30.0), (0.75, 90.0)])
def test_jitter_draws_from_nothing_to_the_whole_delay(dice: float, expected: float) -> None:
    decision = decide(RetryPolicy(jitter=True), OSError(), failures=2, dice=dice)

    assert Retry(expected) == decision


def test_without_jitter_the_dice_are_not_thrown() -> None:
    def dice() -> float:
        raise AssertionError("thrown")

    decision = RetryPolicy().decide(OSError(), failures=1, max_attempts=3, now=NOW, random=dice)

    assert Retry(60.0) == decision


def test_the_row_says_how_many_attempts_there_are_not_the_policy() -> None:
    policy = RetryPolicy(max_attempts=3)

    decision = policy.decide(OSError(), failures=3, max_attempts=4, now=NOW, random=lambda: 0.0)

    assert Retry(240.0) == decision


@pytest.mark.parametrize(
    ("policy", "error", "expected"),
    [
        pytest.param(RetryPolicy(), GiveUp(), NoRetry("the error asks never to be retried"), id="GiveUp"),
        pytest.param(
            RetryPolicy(retry_on=(GiveUp,)),
            GiveUp("no such customer"),
            NoRetry("the error asks never to be retried"),
            id="GiveUp beats retry_on",
        ),
        pytest.param(
            RetryPolicy(),
            with_attributes(OSError(), retry_after=False),
            NoRetry("the error asks never to be retried"),
            id="retry_after = False",
        ),
        pytest.param(
            RetryPolicy(give_up_on=(KeyError,)),
            KeyError("x"),
            NoRetry("KeyError is not worth a retry"),
            id="give_up_on",
        ),
        pytest.param(
            RetryPolicy(retry_on=(LookupError,), give_up_on=(KeyError,)),
            KeyError("x"),
            NoRetry("KeyError is not worth a retry"),
            id="give_up_on beats retry_on",
        ),
        pytest.param(
            RetryPolicy(give_up_on=(RetryIn,)),
            RetryIn(5),
            NoRetry("RetryIn is not worth a retry"),
            id="give_up_on beats what the error asks for",
        ),
        pytest.param(
            RetryPolicy(retry_on=(OSError,)),
            ValueError("x"),
            NoRetry("ValueError is not among the errors worth a retry"),
            id="not in retry_on",
        ),
        pytest.param(RetryPolicy(retry_on=(OSError,)), ConnectionResetError(), Retry(60.0), id="subclass"),
        pytest.param(RetryPolicy(retry_on=(OSError,)), WorkerLost(), Retry(60.0), id="a lost attempt"),
        pytest.param(RetryPolicy(retry_on=(OSError,)), RetryIn(7), Retry(7.0), id="RetryIn beats retry_on"),
        pytest.param(RetryPolicy(), RetryIn(0), Retry(0.0), id="RetryIn 0"),
        pytest.param(RetryPolicy(cap=100), RetryIn(101), Retry(100.0), id="the cap bounds RetryIn"),
        pytest.param(
            RetryPolicy(), with_attributes(OSError(), retry_after=9), Retry(9.0), id="retry_after = 9"
        ),
        pytest.param(RetryPolicy(), http_error(Retry_After="30"), Retry(30.0), id="Retry-After: 30"),
        pytest.param(
            RetryPolicy(cap=100),
            http_error(Retry_After="9999"),
            Retry(100.0),
            id="the cap bounds Retry-After",
        ),
        pytest.param(
            RetryPolicy(),
            KeyboardInterrupt(),
            NoRetry("KeyboardInterrupt is not among the errors worth a retry"),
            id="not an Exception",
        ),
    ],
)
def test_an_error_decides_for_itself_before_the_policy_does(
    policy: RetryPolicy, error: BaseException, expected: Retry | NoRetry
) -> None:
    assert expected == decide(policy, error, failures=1)


@pytest.mark.parametrize("error", [OSError(), RetryIn(1), http_error(Retry_After="1")], ids=repr)
def test_nothing_an_error_asks_for_adds_an_attempt(error: Exception) -> None:
    assert NoRetry("all 3 attempts failed") == decide(RetryPolicy(), error, failures=3)


@settings(deadline=None)
@given(
    failures=st.integers(1, 20),
    max_attempts=st.integers(1, 20),
    error=st.sampled_from([OSError(), RetryIn(3), GiveUp(), KeyError()]),
    dice=st.floats(0, 1, exclude_max=True),
    jitter=st.booleans(),
)
def test_no_error_is_retried_beyond_the_last_attempt_or_after_a_negative_delay(
    failures: int, max_attempts: int, error: Exception, dice: float, jitter: bool
) -> None:
    policy = RetryPolicy(jitter=jitter, cap=90, give_up_on=(KeyError,))

    decision = policy.decide(
        error, failures=failures, max_attempts=max_attempts, now=NOW, random=lambda: dice
    )

    assert isinstance(decision, NoRetry) or (failures < max_attempts and 0 <= decision.seconds <= 90)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(OSError(), None, id="nothing"),
        pytest.param(RetryIn(1.5), 1.5, id="RetryIn"),
        pytest.param(with_attributes(OSError(), retry_after=0), 0.0, id="0"),
        pytest.param(with_attributes(OSError(), retry_after=2.5), 2.5, id="float"),
        pytest.param(with_attributes(OSError(), retry_after=None), None, id="None"),
        pytest.param(with_attributes(OSError(), retry_after=True), None, id="True"),
        pytest.param(with_attributes(OSError(), retry_after="5"), None, id="text"),
        pytest.param(with_attributes(OSError(), retry_after=-1), None, id="negative"),
        pytest.param(with_attributes(OSError(), retry_after=float("nan")), None, id="nan"),
        pytest.param(with_attributes(OSError(), retry_after=float("inf")), None, id="inf"),
        pytest.param(with_attributes(OSError(), retry_after=10**400), None, id="beyond float"),
        pytest.param(with_attributes(OSError(), response=None), None, id="no response"),
        pytest.param(with_attributes(OSError(), response=SimpleNamespace()), None, id="no headers"),
        pytest.param(
            with_attributes(OSError(), response=SimpleNamespace(headers=[1])), None, id="odd headers"
        ),
        pytest.param(http_error(), None, id="no such header"),
        pytest.param(http_error(Retry_After=5), None, id="header that is no text"),
        pytest.param(http_error(Retry_After="soon"), None, id="unreadable header"),
        pytest.param(http_error(Retry_After="5"), 5.0, id="header"),
        pytest.param(http_error(Retry_After="9" * 5000), None, id="header beyond int"),
    ],
)
def test_what_an_error_says_about_a_retry_is_read(error: Exception, expected: float | None) -> None:
    assert expected == requested_delay(error, NOW)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Fri, 01 Mar 2024 12:00:30 GMT", 30.0),
        ("Fri, 01 Mar 2024 14:00:30 +0200", 30.0),
        ("Fri, 01 Mar 2024 12:00:30 -0000", 30.0),
        ("Fri, 01 Mar 2024 11:59:59 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("²", None),
        ("soon", None),
        ("9" * 400, None),
        ("9" * 5000, None),
        ("0" * 5000 + "7", 7.0),
        ("Fri, 99 Mar 2024 12:00:30 GMT", None),
        ("01 Mar 99999999999999 12:00:30 GMT", None),
        ("Fri, 01 Mar 2024 12:00:30 +99999999999999999999", None),
    ],
)
def test_a_retry_after_header_is_seconds_or_a_date(header: str, expected: float | None) -> None:
    assert expected == parse_retry_after(header, NOW)


@settings(deadline=None)
@given(seconds=st.integers(0, 10**9))
def test_a_retry_after_date_round_trips(seconds: int) -> None:
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)

    assert float(seconds) == parse_retry_after(header, NOW)


@settings(deadline=None)
@given(header=st.text(max_size=40) | st.text("0123456789 :,+-JanMrGMT", max_size=40))
def test_no_header_a_server_may_send_breaks_the_rule(header: str) -> None:
    seconds = parse_retry_after(header, NOW)

    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("seconds", [-1, -0.001, float("-inf"), float("nan")])
def test_a_job_cannot_ask_for_a_delay_that_is_none(seconds: float) -> None:
    with pytest.raises(InvalidField, match=r"^seconds: "):
        RetryIn(seconds)
