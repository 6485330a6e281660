"""What is mutated, by which operators, and which quick tests judge it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LEGACY: Final = "apps/portfolio/tests/legacy"

KEPT: Final = re.compile(
    r"(?:Comparison|Binary)Operator_(?:"
    # A neighbour and the opposite of each comparison tell as much as all seven others.
    r"Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt"
    # `|` mostly stands in annotations, which are not evaluated.
    r"|Add_Sub|Sub_Add|Mul_Div|Div_Mul|Pow_Mul|BitAnd_BitOr)$"
)
"""What each operator of Python becomes."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Modules that the same tests judge.

    Attributes:
        name: what the command calls it.
        modules: paths of files, or patterns of them.
        tests: files of tests, the quickest to find something first.
        dependents: packages that may import the modules; each mutant imports them by itself.
        omitted: further operators that are left out.
    """

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    dependents: tuple[str, ...] = ("portfolio", "tasktrail")
    omitted: tuple[str, ...] = ()

    def omits(self, operator: str) -> bool:
        """Return whether an operator of cosmic-ray is left out."""
        is_of_python = "ComparisonOperator" in operator or "BinaryOperator" in operator
        return operator in self.omitted or (is_of_python and not KEPT.search(operator))

    def paths(self, root: Path) -> list[Path]:
        """Return the files of the modules that hold any code."""
        return sorted(path for pattern in self.modules for path in root.glob(pattern))


SUBJECTS: Final = (
    Subject("states", ("src/tasktrail/states.py",), ("tests/unit/test_states.py",)),
    Subject("retry", ("src/tasktrail/retry.py",), ("tests/unit/test_retry.py",)),
    Subject(
        "statements",
        ("src/tasktrail/statements.py", "src/tasktrail/guards.py"),
        tuple(
            f"tests/integration/test_{name}.py"
            for name in ("tracker_writes", "tracker_fence", "tracker_claims", "sweeps", "tracker_properties")
        ),
        # ``built_once`` is a cache: without it a statement is built anew each time.
        omitted=("core/RemoveDecorator",),
    ),
    Subject(
        "twins",
        ("apps/portfolio/src/portfolio/legacy/twins/*.py",),
        (f"{LEGACY}/test_twins.py", f"{LEGACY}/test_twin_properties.py"),
        ("portfolio.legacy",),
    ),
    Subject(
        "transform",
        ("src/tasktrail/migration/transform.py",),
        ("tests/migration/test_transform.py", f"{LEGACY}/test_plan.py"),
    ),
    Subject(
        "plan",
        ("apps/portfolio/src/portfolio/legacy/plan/*.py",),
        (f"{LEGACY}/test_plan.py", f"{LEGACY}/test_pairs.py", f"{LEGACY}/test_cutover.py"),
        ("portfolio.legacy",),
    ),
)
