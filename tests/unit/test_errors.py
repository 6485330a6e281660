"""The exceptions: their tree, their sentences, their way through a pickle, and the stored error text."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasktrail import errors
from tasktrail.errors import (
    ERROR_TEXT_LIMIT,
    AttemptLost,
    BrokerUnavailable,
    ConfigurationError,
    DatabaseUnavailable,
    DirectionTurned,
    DuplicateTracking,
    EmbeddedError,
    ErrorBudgetExceeded,
    FencedOut,
    GateClosed,
    GiveUp,
    InvalidField,
    LeaseExpired,
    MigrationBusy,
    MigrationError,
    MigrationPaused,
    NotDue,
    PlanRefused,
    ReadTimeout,
    RetryIn,
    SchemaOutdated,
    StepInterrupted,
    TasktrailError,
    TimeLimit,
    TrackingError,
    TrackingNotFound,
    Unavailable,
    UnknownDomain,
    WaitFor,
    WorkerLost,
    WrongPhase,
    WrongState,
    clean_text,
    describe,
)

DUE = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)

EXAMPLES: list[tuple[TasktrailError, str]] = [
    (TasktrailError(), "Something went wrong in tasktrail."),
    (TasktrailError("the disk is full"), "the disk is full"),
    (ConfigurationError(), "The configuration of tasktrail is not usable."),
    (
        ReadTimeout(5.0),
        "a read took longer than 5 s and was given up; narrow the filter or the period",
    ),
    (UnknownDomain("orders", ["b", "a"]), "no domain is called 'orders'; registered: a, b"),
    (UnknownDomain("orders"), "no domain is called 'orders'; registered: none"),
    (Unavailable(), "A server cannot be reached."),
    (
        DatabaseUnavailable(),
        "The database cannot be reached: is it running, and is TASKTRAIL_DATABASE_URL right?",
    ),
    (BrokerUnavailable(), "The broker cannot be reached: is it running, and is TASKTRAIL_BROKER_URL right?"),
    (
        SchemaOutdated(),
        "The database schema is older than this version of tasktrail: apply the pending migrations.",
    ),
    (EmbeddedError(), "An embedded server cannot be started or stopped."),
    (InvalidField("currency", "EURO", "is too long"), "currency: is too long (got 'EURO')"),
    (TrackingError("order", 7), "order 7: An operation on a tracking row was refused."),
    (TrackingNotFound("order", 7), "order 7: there is no such tracking row"),
    (
        DuplicateTracking("order", 7, {"day": 1, "currency": "EUR"}, "FAILED"),
        "order 7: already tracks day=1, currency=EUR; it is FAILED",
    ),
    (
        WrongState("order", 7, "claim", "FAILED", ["PENDING"]),
        "order 7: cannot claim: the row is FAILED, it would have to be PENDING",
    ),
    (
        WrongState("order", 7, "cancel", "FAILED", ["PENDING", "PROCESSING"]),
        "order 7: cannot cancel: the row is FAILED, it would have to be PENDING or PROCESSING",
    ),
    (MigrationError(), "A step of the migration did not come through."),
    (
        MigrationBusy("shop", "copy rows", "pid 7 of tasktrail"),
        "shop: cannot copy rows while somebody else does (pid 7 of tasktrail)",
    ),
    (
        MigrationPaused(),
        "Somebody asked the copying to pause; go on with `tasktrail migrate resume`.",
    ),
    (
        PlanRefused("shop", ["no table a", "no table b"]),
        "the plan shop does not fit this database: no table a; no table b",
    ),
    (
        WrongPhase("shop", "copy rows", "planned", "tasktrail migrate expand"),
        "shop: cannot copy rows now, the migration is planned; go on with `tasktrail migrate expand`",
    ),
    (
        GateClosed("shop", "cut over", ["3 rows are quarantined"]),
        "shop: the gate to cut over is closed: 3 rows are quarantined",
    ),
    (
        DirectionTurned(),
        "Another side has become the truth meanwhile; nothing was carried over in the old direction.",
    ),
    (
        StepInterrupted("tasktrail migrate backfill", "the disk is full."),
        (
            "interrupted: the disk is full. What was committed before is kept, the rest was undone; "
            "go on with `tasktrail migrate backfill`"
        ),
    ),
    (
        ErrorBudgetExceeded("orders", 3, 2, ["7: value too long"]),
        (
            "orders: 3 rows made their transform fail, 2 may; e.g. 7: value too long. "
            "Change the rule, or raise --error-budget to have them quarantined"
        ),
    ),
    (NotDue("order", 7, DUE, 1.26), "order 7: is due at 2024-03-01T12:00:00+00:00, in 1.3 s"),
    (NotDue("order", 7, None, None), "order 7: the row waits and has no due time yet"),
    (
        FencedOut("order", 7, "complete", "PENDING"),
        "order 7: stale complete rejected: this attempt no longer owns the row, which is PENDING now",
    ),
    (
        ReadTimeout(5.0),
        "a read took longer than 5 s and was given up; narrow the filter or the period",
    ),
    (AttemptLost(), "The attempt ended without a word from its body."),
    (WorkerLost(), "The worker process ended while it worked on the row."),
    (LeaseExpired("silent for 61 s"), "silent for 61 s"),
    (TimeLimit(), "The attempt ran longer than its hard time limit."),
    (WaitFor([("job", 1), ("job", 2)]), "waits for 2 other rows"),
    (RetryIn(90), "asked to be tried again in 90 s"),
    (RetryIn(1.5, "the server is busy"), "the server is busy"),
    (GiveUp(), "The job asked never to be tried again."),
]


def defined_here() -> list[type[TasktrailError]]:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in classes if kind.__module__ == errors.__name__]


def tree_of_the_docstring() -> dict[str, str]:
    """Return child -> parent, as drawn."""
    parents: dict[str, str] = {}
    path = [("Exception", -1)]
    for indent, name in re.findall(r"^([ │├└─]*)([A-Z]\w+)(?:  .*)?$", errors.__doc__ or "", re.MULTILINE):
        while path[-1][1] >= len(indent):
            path.pop()
        parents[name] = path[-1][0]
        path.append((name, len(indent)))
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = {kind.__name__: kind.__bases__[0].__name__ for kind in defined_here()}

    assert classes == tree_of_the_docstring()


def test_every_exception_has_an_example_here() -> None:
    assert set(defined_here()) == {type(error) for error, _ in EXAMPLES}


@pytest.mark.parametrize("kind", defined_here())
def test_the_docstring_of_an_exception_is_its_default_message(kind: type[TasktrailError]) -> None:
    assert kind.__doc__
    if "__init__" not in vars(kind) and not issubclass(kind, TrackingError):
        assert str(kind()) == kind.__doc__


@pytest.mark.parametrize(("error", "expected"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_exception_reads_as_one_sentence(error: TasktrailError, expected: str) -> None:
    assert expected == str(error)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy], ids=["pickle", "copy"])
@pytest.mark.parametrize(("error", "expected"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_exception_survives_its_way_to_another_process(error, expected, copied) -> None:
    twin = copied(error)
    if isinstance(twin, bytes):
        twin = pickle.loads(twin)

    assert type(error) is type(twin)
    assert expected == str(twin)
    assert vars(error) == vars(twin)


def test_a_note_survives_a_pickle() -> None:
    error = GiveUp()
    error.add_note("the customer is gone")

    assert pickle.loads(pickle.dumps(error)).__notes__ == ["the customer is gone"]


def test_a_users_own_subclass_survives_a_pickle() -> None:
    twin = pickle.loads(pickle.dumps(OutOfStock("screws", 3)))

    assert (twin.article, twin.left, str(twin)) == ("screws", 3, "screws: 3 left")


class OutOfStock(GiveUp):
    """Its arguments are not its message."""

    def __init__(self, article: str, left: int) -> None:
        self.article = article
        self.left = left
        super().__init__(f"{article}: {left} left")


def test_a_long_value_is_shortened_in_the_message_and_kept_in_the_attribute() -> None:
    error = InvalidField("payload", "x" * 1000, "is too long")

    assert len(str(error)) < 150
    assert error.value == "x" * 1000


class Unspeakable(Exception):
    """An error of a library that breaks while it explains itself."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ValueError("no such day"), "ValueError: no such day", id="message"),
        pytest.param(ValueError(), "ValueError", id="no message"),
        pytest.param(ValueError("a\nb"), "ValueError: a\nb", id="two lines"),
        pytest.param(KeyError("day"), "KeyError: 'day'", id="KeyError"),
        pytest.param(OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error", id="OSError"),
        pytest.param(KeyboardInterrupt(), "KeyboardInterrupt", id="not an Exception"),
        pytest.param(ValueError("a\x00b"), "ValueError: a�b", id="NUL"),
        pytest.param(GiveUp("gone"), "GiveUp: gone", id="ours"),
    ],
)
def test_an_error_is_stored_as_class_and_message(error: BaseException, expected: str) -> None:
    assert expected == describe(error)


def test_an_error_that_cannot_be_put_into_words_is_stored_by_its_class() -> None:
    assert describe(Unspeakable()).startswith("Unspeakable")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("tab\tnewline\n", "tab\tnewline\n"),
        ("Größe €, 😀", "Größe €, 😀"),
        ("\x00", "�"),
        ("a\x00b\x00", "a�b�"),
    ],
)
def test_a_text_is_kept_as_far_as_postgresql_can_store_it(text: str, expected: str) -> None:
    assert expected == clean_text(text)


@pytest.mark.parametrize("surrogates", [[0xD800], [0xDFFF], [0xDE00, 0xD83D], [0xD83D, 0xDE00]], ids=str)
def test_surrogates_are_replaced_and_the_rest_is_kept(surrogates: list[int]) -> None:
    text = f"a{''.join(map(chr, surrogates))}b"

    assert re.fullmatch("a�+b", clean_text(text))


def test_a_text_of_exactly_the_limit_is_not_cut() -> None:
    text = "x" * (ERROR_TEXT_LIMIT - 2) + "é"

    assert text == clean_text(text)


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
@pytest.mark.parametrize("shift", range(4))
def test_a_long_text_is_cut_between_characters_and_says_so(character: str, shift: int) -> None:
    text = "." * shift + character * 2 * ERROR_TEXT_LIMIT

    cleaned = clean_text(text)

    kept, note = cleaned.split(" … ")
    assert f"[cut, {len(text.encode())} bytes]" == note
    assert text.startswith(kept)
    assert ERROR_TEXT_LIMIT - 3 <= len(cleaned.encode()) <= ERROR_TEXT_LIMIT


def test_a_long_error_still_begins_with_its_class() -> None:
    described = describe(ValueError("x" * 100_000))

    assert described.startswith("ValueError: xxx")
    assert len(described.encode()) == ERROR_TEXT_LIMIT


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=())), limit=st.integers(0, 200))
def test_any_text_becomes_storable_and_fits_the_limit(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)

    assert len(cleaned.encode()) <= limit
    assert "\x00" not in cleaned


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=())))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean_text(text) == clean_text(clean_text(text))
