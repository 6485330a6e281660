"""What is wrong with legacy rows: each kind of it as a change to a clean one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from portfolio.legacy.history import Fields

Change: TypeAlias = Callable[[Fields], Mapping[str, str | None]]

JSON_COLUMN: Final = "task_metadata is json or text"
TEXT_COLUMN: Final = "task_metadata is text"
NO_FOREIGN_KEY: Final = "etf_updates has no foreign key"
NULLABLE_CREATED_AT: Final = "etf_updates.created_at may be NULL"


SOME_DAY: Final = "2024-03-01"


@dataclass(frozen=True, slots=True)
class Dirt:
    """One kind of dirt.

    Attributes:
        name: for the report.
        change: the columns that are different, from the clean row.
        needs: a property of the table without which PostgreSQL keeps this kind out; None if it never does.
    """

    name: str
    change: Change
    needs: str | None = None


def fitting(kinds: Collection[Dirt], properties: Collection[str]) -> list[Dirt]:
    """Return the kinds that a table lets in.

    Args:
        kinds: some kinds.
        properties: what is true of the table, in the words of ``needs``.
    """
    return [kind for kind in kinds if kind.needs is None or kind.needs in properties]


def _set(**columns: str | None) -> Change:
    return lambda _: columns


def _rates(metadata: str | None, **columns: str | None) -> Change:
    """Exchange rates with these metadata; the day in them becomes the row's own."""

    def change(fields: Fields) -> Mapping[str, str | None]:
        own = (fields["created_at"] or SOME_DAY)[: len(SOME_DAY)]
        given = metadata and metadata.replace(SOME_DAY, own)
        return {"task_type": "exchange_rate_update", "task_metadata": given, **columns}

    return change


def _named(name: str, value: str) -> Change:
    """Exchange rates with one key of the metadata set to a piece of JSON, and the other one good."""
    good = {"currencies": '["USD", "CHF"]'} if name == "date" else {"date": '"2024-03-01"'}
    inner = ", ".join(f'"{key}": {text}' for key, text in {**good, name: value}.items())
    return _rates(f"{{{inner}}}")


def _creation(metadata: str | None) -> Change:
    return _set(task_type="etf_creation", task_metadata=metadata)


def _respelled(fields: Fields) -> Mapping[str, str | None]:
    return {"status": f" {(fields['status'] or '').title()} \n"}


TASK_DIRT: Final = (
    Dirt("status in another spelling", _respelled),
    Dirt("status in another word", _set(status="success")),
    Dirt("retrying", _set(status="retrying", error="HTTPError: 502 Bad Gateway")),
    Dirt("completed_with_errors", _set(status="completed_with_errors", error="SEK: no rate")),
    Dirt("unknown status", _set(status="zombie")),
    Dirt("unknown task type", _set(task_type="one_off_fix_of_march")),
    Dirt("pension processing without an ETF", _set(
        task_type="etf_pension_processing", task_metadata='{"realize_historical_contributions": true}')),
    Dirt("metadata missing", _rates(None)),
    Dirt("metadata JSON null", _rates("null")),
    Dirt("metadata a scalar", _rates('"2024-03-01"')),
    Dirt("metadata an array", _rates('["USD"]')),
    Dirt("metadata of a creation an array", _creation("[]")),
    Dirt("date missing", _rates('{"currencies": ["USD", "CHF"]}')),
    Dirt("currencies missing", _rates('{"date": "2024-03-01"}')),
    Dirt("no such day", _named("date", '"2024-02-30"')),
    Dirt("ambiguous day", _named("date", '"01/02/2024"')),
    Dirt("day as a number", _named("date", "20240301")),
    Dirt("day out of range", _named("date", '"0024-03-01"')),
    Dirt("currencies not a list", _named("currencies", '"USD,CHF"')),
    Dirt("currencies empty", _named("currencies", "[]")),
    Dirt("currency not three letters", _named("currencies", '["USD", "SWISS"]')),
    Dirt("currency not a text", _named("currencies", '["USD", 756]')),
    Dirt("currencies doubled", _named("currencies", '["USD", "CHF", "USD"]')),
    Dirt("currencies in lower case", _named("currencies", '["usd", " chf"]')),
    Dirt("base currency among the currencies", _named("currencies", '["EUR", "USD"]')),
    Dirt("another base currency", _named("base_currency", '"USD"')),
    Dirt("created_at missing", _set(created_at=None)),
    Dirt("updated_at missing", _set(updated_at=None)),
    Dirt("all times missing", _rates(None, created_at=None, updated_at=None)),
    Dirt("created_at out of range", _set(created_at="1970-01-01 00:00:00")),
    Dirt("updated_at infinite", _set(updated_at="infinity")),
    Dirt("over-long id of an ETF", _creation(f'{{"etf_id": "{"X" * 300}"}}')),
    Dirt("id of an ETF not a text", _creation('{"etf_id": 4711}')),
    Dirt("lone surrogate", _rates('{"date": "2024-03-01", "who": "\\ud800"}'), JSON_COLUMN),
    Dirt("NUL", _rates('{"date": "2024-03-01", "who": "a\\u0000b"}'), JSON_COLUMN),
    Dirt("bad JSON", _rates("{'date': '2024-03-01'}"), TEXT_COLUMN),
    Dirt("NaN", _rates('{"date": "2024-03-01", "rate": NaN}'), TEXT_COLUMN),
)  # fmt: skip

ETF_UPDATE_DIRT: Final = (
    Dirt("status in another spelling", _respelled),
    Dirt("unknown status", _set(status="paused")),
    Dirt("retrying without a count", _set(status="retrying", retry_count="0", completed_at=None)),
    Dirt("many retries", _set(status="pending", retry_count="7", completed_at=None)),
    Dirt("completed_with_errors", _set(status="completed_with_errors", error="2 days without a price")),
    Dirt("ended without a time", _set(status="completed", completed_at=None)),
    Dirt("pending with an end", _set(status="pending")),
    Dirt("unknown update type", _set(update_type="weekly")),
    Dirt("update type in another spelling", _set(update_type="Prices_Only ")),
    Dirt("reversed days", lambda row: {"start_date": row["end_date"], "end_date": row["start_date"]}),
    Dirt("day out of range", _set(start_date="0024-01-01")),
    Dirt("negative retries", _set(retry_count="-1")),
    Dirt("missing day is NULL", _set(missing_dates="{2024-03-01,NULL}")),
    Dirt("missing days empty", _set(missing_dates="{}")),
    Dirt("error blank", _set(error=" \n")),
    Dirt("error very long", _set(error="Traceback " * 2000)),
    Dirt("created_at out of range", _set(created_at="1970-01-01 00:00:00")),
    Dirt("no such ETF", _set(etf_id="GONE"), NO_FOREIGN_KEY),
    Dirt("created_at missing", _set(created_at=None), NULLABLE_CREATED_AT),
)

DAILY_DIRT: Final = (
    Dirt("never looked at", _set(attempted=None, data_found=None)),
    Dirt("attempted is NULL", _set(attempted=None, data_found="f")),
    Dirt("data found is NULL", _set(attempted="t", data_found=None)),
    Dirt("data found without an attempt", _set(attempted="f", data_found="t")),
    Dirt("a weekend", _set(attempted="t", data_found="f", notes="a weekend, no data expected")),
    Dirt("unknown update type", lambda row: {"update_type": f"Weekly {row['update_type']}"}),
    Dirt("update type with a blank", lambda row: {"update_type": f"{row['update_type']} "}),
)
