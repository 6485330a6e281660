"""Which application a command is about: ``--app module:attribute``, or ``TASKTRAIL_APP``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Final, TypeAlias

import typer

from tasktrail.celery import Trail
from tasktrail.errors import ConfigurationError, TasktrailError, describe

LoadTrail: TypeAlias = Callable[[], Trail]

VARIABLE: Final = "TASKTRAIL_APP"
ACCEPTED: Final = "a Trail, a Celery application with one, or a function that returns one"


def trail_of(context: typer.Context) -> Trail:
    """Return the trail that the command line or the environment names, with all its tasks registered.

    Args:
        context: the command's; its ``obj`` is a ``LoadTrail``, put there by the callback of the program.

    Raises:
        ConfigurationError: none is named, or what is named cannot be used.
    """
    load: LoadTrail = context.find_root().obj
    return load()


def load_trail(name: str | None) -> Trail:
    """Return the trail that a name leads to, and import the task modules of its Celery application.

    Args:
        name: ``module:attribute``; the module is looked for in the working directory, too. The attribute may
            be a trail, a Celery application that has one, or a callable without arguments that returns
            either.

    Raises:
        ConfigurationError: there is no such thing; the message says what is missing.
        TasktrailError: what the module itself says, e.g. that no database is configured.
    """
    if not name:
        raise ConfigurationError(
            f"no application is named: write tasktrail --app module:attribute, or set {VARIABLE}"
        )
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"--app {name}: write module:attribute, e.g. shop:trail")
    module = _module(name, module_name)
    try:
        found: object = attrgetter(attribute)(module)
    except AttributeError:
        raise ConfigurationError(
            f"--app {name}: {module_name} has no {attribute}{_suggestion(module)}"
        ) from None
    trail = _trail_in(found)
    if trail is None and callable(found):
        found = _guarded(name, "calling it", found)
        trail = _trail_in(found)
    if trail is None:
        raise ConfigurationError(
            f"--app {name}: it is of type {type(found).__name__}, but must be {ACCEPTED}"
        )
    _guarded(name, "importing its tasks", trail.app.loader.import_default_modules)
    return trail


def _module(name: str, module_name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module_name)
    except TasktrailError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"--app {name}: there is no module {error.name}, neither installed nor in {folder}"
            ) from error
        raise ConfigurationError(f"--app {name}: importing it failed: {describe(error)}") from error
    except Exception as error:
        raise ConfigurationError(f"--app {name}: importing it failed: {describe(error)}") from error


def _guarded(name: str, what: str, function: Callable[[], object]) -> object:
    try:
        return function()
    except TasktrailError:
        raise
    except Exception as error:
        raise ConfigurationError(f"--app {name}: {what} failed: {describe(error)}") from error


def _trail_in(found: object) -> Trail | None:
    trail = found if isinstance(found, Trail) else getattr(found, "tasktrail", None)
    return trail if isinstance(trail, Trail) else None


def _suggestion(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if _trail_in(value) is not None)
    return f"; it has {', '.join(names)}" if names else ""
