"""One thing that is not as it should be, whoever finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Way: TypeAlias = Literal["account", "checksum", "twin", "pair", "straggler", "unwritable"]
"""Who finds differences: the three verifications, the comparison of what both systems did, and, once the
new tables are the truth, a write of an old worker and a row that the legacy table cannot hold."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be.

    Attributes:
        way: who found it.
        table: its name in the plan.
        key: of the row: the legacy key, or that of the target with the route before it.
        what: ``missing``, ``extra``, ``different``, ``unaccounted``, ``stale`` and so on.
        column: which column is different; empty where it is the whole row.
        expected: what should be there, as text.
        found: what is there, as text.
    """

    way: Way
    table: str
    key: str
    what: str
    column: str = ""
    expected: str | None = None
    found: str | None = None
