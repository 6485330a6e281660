"""The metadata of a legacy task: JSON as PostgreSQL's ``jsonb`` accepts it, read without PostgreSQL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, NoReturn, TypeAlias

from portfolio.legacy.reasons import Reason, Unmappable

MOST_BRACKETS: Final = 500
"""How many opening brackets the text may have: it bounds the depth, which neither parser would survive."""

_DIGITS_BEFORE_THE_POINT: Final = 131_072
_DIGITS_BEHIND_THE_POINT: Final = 16_383
_LARGEST_EXPONENT: Final = 2**30 - 1
"""What ``numeric`` can hold and read; ``jsonb`` stores numbers in it."""

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""NUL, and halves of surrogate pairs: JSON can name both, a text in PostgreSQL can hold neither."""

Shape: TypeAlias = Literal["absent", "object", "scalar or array"]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a task's metadata say.

    Attributes:
        shape: what they are at all.
        fields: what is in the object; nothing if they are none.
    """

    shape: Shape
    fields: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """Return the value of a key; None for one that is not there, or is JSON null."""
        return self.fields.get(name)


def read_metadata(text: object) -> Metadata:
    """Return what the text of a metadata column says.

    Numbers become what ``json.loads`` makes of the text that ``jsonb`` prints for them: ``1e2`` is 100.

    Args:
        text: the column's value as text; None for NULL.

    Raises:
        Unmappable: PostgreSQL would not take it as ``jsonb``, or it has too many brackets.
    """
    if text is None:
        return Metadata("absent")
    if not isinstance(text, str):
        raise Unmappable(Reason.METADATA_NOT_JSON)
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise Unmappable(Reason.METADATA_TOO_COMPLEX)
    try:
        value = json.loads(
            text,
            parse_constant=_refused,
            parse_int=_number,
            parse_float=_number,
            object_pairs_hook=_object,
        )
        _check_texts(value)
    except (ValueError, ArithmeticError):
        raise Unmappable(Reason.METADATA_NOT_JSON) from None
    if value is None:
        return Metadata("absent")
    return Metadata("object", value) if isinstance(value, dict) else Metadata("scalar or array")


def _refused(constant: str) -> NoReturn:
    raise ValueError(constant)


def _number(text: str) -> int | float:
    number = Decimal(text)
    _, _, exponent = number.as_tuple()
    before = number.adjusted() + 1 if number else 0
    if (
        not isinstance(exponent, int)
        or abs(exponent) > _LARGEST_EXPONENT
        or before > _DIGITS_BEFORE_THE_POINT
        or -exponent > _DIGITS_BEHIND_THE_POINT
    ):
        raise ValueError(text)
    return int(number) if exponent >= 0 else float(number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; the texts under keys that a later one replaces are judged as well."""
    for key, value in pairs:
        _check_texts(key)
        _check_texts(value)
    return dict(pairs)


def _check_texts(value: object) -> None:
    """Refuse texts that PostgreSQL cannot store; objects were judged when they were made."""
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise ValueError(value)
    elif isinstance(value, list):
        for element in value:
            _check_texts(element)
