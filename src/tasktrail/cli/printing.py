"""How texts from elsewhere are printed."""

from __future__ import annotations

from rich.markup import escape

from tasktrail.display import visible


def plain(text: str) -> str:
    """Return a text that neither the terminal nor ``rich`` obeys."""
    return escape(visible(text))
