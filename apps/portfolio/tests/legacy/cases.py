"""All cases of the legacy tables; see ``case.py`` for what one is."""

from __future__ import annotations

from typing import Final

from apps.portfolio.tests.legacy.cases_creation import CREATION_CASES
from apps.portfolio.tests.legacy.cases_daily import DAILY_CASES
from apps.portfolio.tests.legacy.cases_etf_updates import ETF_UPDATE_CASES
from apps.portfolio.tests.legacy.cases_rates import RATES_CASES

CASES: Final = (*RATES_CASES, *CREATION_CASES, *ETF_UPDATE_CASES, *DAILY_CASES)
