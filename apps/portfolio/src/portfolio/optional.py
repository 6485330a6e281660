"""Packages of ours that may be missing, because they are deleted one day."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final

PACKAGES: Final = ("legacy",)
"""Their names; each has commands as ``app`` in its module ``cli``, and a part of the demonstration."""


def present(module: str) -> Iterator[tuple[str, ModuleType]]:
    """Return a module of each package that is there, with the package's name.

    Args:
        module: name of the module within the package.
    """
    for name in PACKAGES:
        if find_spec(f"portfolio.{name}") is not None:
            yield name, import_module(f"portfolio.{name}.{module}")
