"""What each legacy row becomes, in plain Python.

Written from ``docs/reference/legacy-mapping.md`` and from nothing else, so that it can bear witness for or
against the SQL that moves the rows. A twin takes a row as the driver reads it, JSON as text, and judges it by
itself.
"""

from portfolio.legacy.twins.creation import etf_creation_twin
from portfolio.legacy.twins.daily import daily_update_twin
from portfolio.legacy.twins.etf_updates import ETF_EXISTS, etf_update_twin
from portfolio.legacy.twins.rates import exchange_rate_twin
from portfolio.legacy.twins.tasks import is_creation, is_exchange_rates, task_status_twin

__all__ = [
    "ETF_EXISTS",
    "daily_update_twin",
    "etf_creation_twin",
    "etf_update_twin",
    "exchange_rate_twin",
    "is_creation",
    "is_exchange_rates",
    "task_status_twin",
]
