"""Texts from elsewhere, such as errors, as a page or a terminal may show them."""

from __future__ import annotations

from typing import Final

MOST_TEXT: Final = 100_000
"""Longer texts are cut, in characters."""

DIRECTIONS: Final = frozenset(
    "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)
"""Characters that cannot be seen, and turn the text around them."""


def visible(text: str) -> str:
    """Return a text in which control characters and those that turn the direction can be seen.

    Args:
        text: any text; a terminal would obey its control characters.
    """
    cut = text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}… and {len(text) - MOST_TEXT:,} characters"
    return "".join(_visible(character) for character in cut)


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 0x20:  # noqa: PLR2004  # where ASCII's control characters end
        return f"\\x{code:02x}"
    if 0x7F <= code < 0xA0 or character in DIRECTIONS:  # noqa: PLR2004  # the control characters of Latin-1
        return f"\\u{code:04x}"
    return character
