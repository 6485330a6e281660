"""Which plan ``tasktrail migrate`` is about: ``--plan module:attribute``, or ``TASKTRAIL_PLAN``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from tasktrail.errors import ConfigurationError, TasktrailError, describe
from tasktrail.migration.plan import MigrationPlan

VARIABLE: Final = "TASKTRAIL_PLAN"

Plan = Annotated[
    str | None,
    typer.Option("--plan", envvar=VARIABLE, metavar="MODULE:ATTRIBUTE", help="The migration plan."),
]


def load_plan(name: str | None) -> MigrationPlan:
    """Return the plan that a name leads to.

    Args:
        name: ``module:attribute``; the module is looked for in the working directory, too.

    Raises:
        ConfigurationError: there is no such thing; the message says what is missing.
        TasktrailError: what the module itself says, e.g. that the plan contradicts itself.
    """
    if not name:
        raise ConfigurationError(
            "no plan is named: write tasktrail migrate … --plan module:attribute, or set TASKTRAIL_PLAN"
        )
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"--plan {name}: write module:attribute, e.g. shop.legacy:PLAN")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except TasktrailError:
        raise
    except Exception as error:
        raise ConfigurationError(f"--plan {name}: importing it failed: {describe(error)}") from error
    plan: object = getattr(module, attribute, None)
    if not isinstance(plan, MigrationPlan):
        raise ConfigurationError(
            f"--plan {name}: it is of type {type(plan).__name__}, but must be a MigrationPlan"
        )
    return plan
