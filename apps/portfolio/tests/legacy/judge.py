"""What the twins say of a row of the tests, whichever table it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from apps.portfolio.tests.legacy.case import CREATION, DAILY, ETFS, RATES, UPDATES

from portfolio.legacy.twins import ETF_EXISTS, daily_update_twin, etf_update_twin, task_status_twin
from portfolio.models import (
    DailyUpdateTracking,
    EtfCreationTracking,
    EtfUpdateTracking,
    ExchangeRateUpdateTracking,
)
from tasktrail import BaseTaskTracking
from tasktrail.migration.plan import Mapped, Refused

TWINS: Final = {
    "task_status": task_status_twin,
    "etf_updates": etf_update_twin,
    "daily_update_tracking": daily_update_twin,
}
MODELS: Final[dict[str, type[BaseTaskTracking]]] = {
    RATES: ExchangeRateUpdateTracking,
    CREATION: EtfCreationTracking,
    UPDATES: EtfUpdateTracking,
    DAILY: DailyUpdateTracking,
}


def judge(source: str, row: Mapping[str, Any]) -> Mapped | Refused:
    """Return what the twin of a table says of a row."""
    given = {"id": 1, **row}
    if source == "etf_updates":
        given[ETF_EXISTS] = given["etf_id"] in ETFS
    return TWINS[source](given)


def model_of(source: str, made: Mapped) -> type[BaseTaskTracking]:
    """Return the model of the table that a row goes to."""
    if source == "task_status":
        return MODELS[RATES if "base_currency" in made.values else CREATION]
    return MODELS[UPDATES if source == "etf_updates" else DAILY]
