"""Masks secrets in what people are shown: in error texts, and in declared columns, however deep in JSON.

It masks rather too much than too little: a masked word costs a look into the database, a shown secret more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

MASK: Final = "[masked]"

_NAMES: Final = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credentials?|authorization|signature|cookie"
)
_SECRET_NAME: Final = re.compile(rf"(?:{_NAMES})s?$", re.IGNORECASE)
_RULES: Final = (
    (
        re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END[^-]{0,40}-----|\Z)", re.DOTALL),
        MASK,
    ),
    # Up to the last @, as a password that was not encoded may hold one, or a slash.
    (
        re.compile(r"([a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"]{0,200}:)[^\s'\"<>]{1,500}@", re.IGNORECASE),
        rf"\1{MASK}@",
    ),
    (re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1\2{MASK}"),
    (
        re.compile(
            rf"((?:{_NAMES})[\w.-]{{0,30}}\\?[\"']?\s{{0,5}}(?:=>|[=:])\s{{0,5}})"
            r"(?:\\?\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"), MASK),
    (re.compile(r"\b(?:tt_|gh[pousr]_|xox[abprs]-|sk-|AKIA)[\w-]{16,}"), MASK),
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
