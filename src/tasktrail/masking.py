"""Masks secrets in what people are shown: in error texts, and in declared columns, however deep in JSON.

It masks rather too much than too little: a masked word costs a look into the database, a shown secret more.

Each rule for texts exists once, as a pattern that Python and PostgreSQL read alike: classes of ASCII
characters, no repetition above 255. Where the two differ it is PostgreSQL that takes the longer match, so it
masks no less. A test holds both against each other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Text, func, literal

MASK: Final = "[masked]"

_NAMES: Final = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credentials?|authorization|signature|cookie"
)
_SECRET_NAME: Final = re.compile(rf"(?:{_NAMES})s?$", re.IGNORECASE)

SPACE: Final = r" \t\n\r\f\v"
WORD: Final = r"A-Za-z0-9_"
BEFORE_WORD: Final = f"(?<![{WORD}])"

_URL: Final = (
    rf"([a-z][a-z0-9+.-]{{1,20}}://[^{SPACE}:/@'\"]{{0,200}}:)"
    rf"(?:[^{SPACE}'\"<>]{{250}})?[^{SPACE}'\"<>]{{1,250}}@"
)
_NAMED: Final = (
    rf"((?:{_NAMES})[{WORD}.-]{{0,30}}\\?[\"']?[{SPACE}]{{0,5}}(?:=>|[=:])[{SPACE}]{{0,5}})"
    rf"(?:\[masked\]|\\?\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)|[^{SPACE},;&)}}\]]+)"
)

RULES: Final = (
    # The first repetition is lazy, which makes the whole of it so for PostgreSQL: up to the first end.
    (r"-----BEGIN [A-Z ]{0,30}?PRIVATE KEY-----.*?(?:-----END[^-]{0,40}-----|\Z)", MASK),
    # Up to the last @, as a password that was not encoded may hold one, or a slash.
    (_URL, rf"\1{MASK}@"),
    (rf"{BEFORE_WORD}(bearer|basic)([{SPACE}]+)[{WORD}.~+/=-]{{6,}}", rf"\1\2{MASK}"),
    (_NAMED, rf"\1{MASK}"),
    (rf"{BEFORE_WORD}eyJ[{WORD}-]{{5,}}\.[{WORD}-]{{5,}}\.[{WORD}-]*", MASK),
    (rf"{BEFORE_WORD}(?:tt_|gh[pousr]_|xox[abprs]-|sk-|AKIA)[{WORD}-]{{16,}}", MASK),
)
"""Patterns, without regard to case, and what takes the place of what they match, in this order."""

_RULES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL | re.ASCII), replacement) for pattern, replacement in RULES
)


def mask_text(text: str) -> str:
    """Return a text without what looks like a secret.

    Masked are passwords in URLs, bearer and basic credentials, values after names such as ``password=``,
    private keys, and tokens of well-known forms.

    Args:
        text: e.g. the error of a row.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def mask_text_sql(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Build the same in SQL, for conditions that may not tell what is masked."""
    text: ColumnElement[str] = column
    for pattern, replacement in RULES:
        text = func.regexp_replace(text, literal(pattern), literal(replacement), literal("gi"), type_=Text())
    return text


def mask_value(value: Any) -> Any:
    """Return a JSON-like value with every secret in it masked, and the values of keys that name one."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        return {key: _under(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask_value(inner) for inner in value]
    return value


def mask_fields(fields: Mapping[str, Any], sensitive: Collection[str]) -> dict[str, Any]:
    """Return the domain columns of a row as they may be shown.

    Args:
        fields: names and values.
        sensitive: the columns that the domain declares as such; an empty one is shown as empty.
    """
    return {
        name: MASK if name in sensitive and value is not None else mask_value(value)
        for name, value in fields.items()
    }


def _under(key: object, value: Any) -> Any:
    is_secret = isinstance(key, str) and _SECRET_NAME.search(key) and value not in (None, True, False)
    return MASK if is_secret else mask_value(value)
