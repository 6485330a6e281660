"""Why a legacy row is not migrated: the codes in the ledger, each with a sentence for people."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A code; the conditions are in ``docs/reference/legacy-mapping.md``."""

    UNKNOWN_TYPE = "unknown_type"
    """Nobody has said what becomes of tasks of this type."""
    UNKNOWN_STATUS = "unknown_status"
    """The status is no word of the old system."""
    UNKNOWN_UPDATE_TYPE = "unknown_update_type"
    """The type of the update is no word of the old system."""
    UPDATE_TYPE_TOO_LONG = "update_type_too_long"
    """The type of the update does not fit the new column."""
    CREATED_AT_MISSING = "created_at_missing"
    """Nothing in the row says when it was made."""
    CREATED_AT_OUT_OF_RANGE = "created_at_out_of_range"
    """The row was made at a time at which there was no such system."""
    UPDATED_AT_OUT_OF_RANGE = "updated_at_out_of_range"
    """The row was last written at a time at which there was no such system."""
    COMPLETED_AT_OUT_OF_RANGE = "completed_at_out_of_range"
    """The job ended at a time at which there was no such system."""
    METADATA_TOO_COMPLEX = "metadata_too_complex"
    """The metadata have more brackets than any that the old system wrote."""
    METADATA_NOT_JSON = "metadata_not_json"
    """The metadata are no JSON that PostgreSQL can hold."""
    METADATA_NOT_AN_OBJECT = "metadata_not_an_object"
    """The metadata are a single value or a list, which nothing can be looked up in."""
    BASE_CURRENCY_NOT_EUR = "base_currency_not_eur"
    """The rates are for a currency other than the euro."""
    DATE_MISSING = "date_missing"
    """A day is missing, and nothing else in the row gives it."""
    DATE_MALFORMED = "date_malformed"
    """The day is no day of the calendar, or is written in a form that can be read in two ways."""
    DATE_OUT_OF_RANGE = "date_out_of_range"
    """The day is one for which there can be no data."""
    DATES_REVERSED = "dates_reversed"
    """The first day is after the last."""
    CURRENCIES_NOT_A_LIST = "currencies_not_a_list"
    """The currencies are not a list."""
    CURRENCY_MALFORMED = "currency_malformed"
    """One of the currencies is no code of three letters."""
    CURRENCIES_EMPTY = "currencies_empty"
    """There is no currency but the base currency."""
    ETF_ID_MALFORMED = "etf_id_malformed"
    """The id of the ETF is empty, is no text, or holds control characters."""
    ETF_ID_TOO_LONG = "etf_id_too_long"
    """The id of the ETF is longer than any id can be."""
    ETF_UNKNOWN = "etf_unknown"
    """There is no such ETF."""
    RESOURCE_ID_OUT_OF_RANGE = "resource_id_out_of_range"
    """The resource id does not fit the new column."""
    RETRY_COUNT_OUT_OF_RANGE = "retry_count_out_of_range"
    """The number of retries is negative, or greater than any job was ever retried."""
    MISSING_DATES_MALFORMED = "missing_dates_malformed"
    """The missing days are not a plain list of days."""


class Unmappable(Exception):
    """A legacy row breaks a rule; it is quarantined.

    Attributes:
        reason: which rule.
    """

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.value)
