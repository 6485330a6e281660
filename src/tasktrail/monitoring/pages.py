"""Tokens of pages: where the next page of a filter begins; one that was changed is noticed."""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2s
from typing import Final

from tasktrail.errors import InvalidField

KEY_BYTES: Final = 8
CHECK_BYTES: Final = 10


def token_of(key: tuple[int, int], context: tuple[str, ...]) -> str:
    """Return the token of the page after a row.

    Args:
        key: the last row of the page before, and its place in another order.
        context: what the pages are of; a token is of no use elsewhere.
    """
    raw = b"".join(number.to_bytes(KEY_BYTES, signed=True) for number in key)
    return urlsafe_b64encode(raw + _check(raw, context)).decode().rstrip("=")


def read_token(token: str, context: tuple[str, ...]) -> tuple[int, int]:
    """Return the row after which a page begins, and its place in another order.

    A token is no secret and opens nothing: it holds an id, and the filter is checked anew. What is guarded
    against is a page of other rows than those that were asked for.

    Raises:
        InvalidField: the token was changed, or belongs to another filter.
    """
    size = 2 * KEY_BYTES + CHECK_BYTES
    try:
        found = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (ValueError, binascii.Error):
        found = b""
    raw, check = found[:-CHECK_BYTES], found[-CHECK_BYTES:]
    if len(found) != size or not hmac.compare_digest(check, _check(raw, context)):
        raise InvalidField("page", token, "is no page of this list; start again at the first one")
    return int.from_bytes(raw[:KEY_BYTES], signed=True), int.from_bytes(raw[KEY_BYTES:], signed=True)


def _check(raw: bytes, context: tuple[str, ...]) -> bytes:
    return blake2s(
        raw + "\x00".join(context).encode("utf-8", "surrogatepass"), digest_size=CHECK_BYTES
    ).digest()
