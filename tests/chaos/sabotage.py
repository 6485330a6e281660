"""Switches a safety of tasktrail off in a worker, so that the invariants can be seen to break."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, or_

from tasktrail import guards, maintenance, statements

SABOTAGE: Final = "CHAOS_WITHOUT"
"""Environment variable that names what a worker does without."""
SAFETIES: Final = ("fence", "rescue")


def switch_off(safety: str) -> None:
    """Take a safety away from this process.

    Args:
        safety: ``fence``, the guard of an attempt's writes, which then match by id alone; or ``rescue``, the
            sweep for leases that ran out.

    Raises:
        ValueError: there is no such safety.
    """
    match safety:
        case "fence":
            assert statements._owned is guards.owned, "the fence is somewhere else by now"
            statements._owned = _by_id_alone
        case "rescue":
            assert callable(maintenance.Maintenance._rescue), "the rescue is somewhere else by now"
            maintenance.Maintenance._rescue = _rescue_nothing
        case _:
            raise ValueError(f"there is no safety called {safety}, only {', '.join(SAFETIES)}")


def _by_id_alone(table: Table) -> tuple[ColumnElement[bool], ...]:
    this_row, *fence = guards.owned(table)
    # The fence's parameters stay in the statement, since they are passed to it.
    return (this_row, or_(table.c.id == table.c.id, and_(*fence)))


def _rescue_nothing(*_: Any) -> int:
    return 0
