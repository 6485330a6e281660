"""Pages from templates; everything that is put into them is escaped."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasktrail.display import visible
from tasktrail.web import charts, wording

TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = Path(__file__).parent / "static"


def _ticks(text: str) -> Markup:
    """Return a text in which what stands between backticks is code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 and place < len(parts) - 1 else part
        for place, part in enumerate(parts)
    )


_environment: Final = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(
    number=wording.number,
    rate=wording.rate,
    percent=wording.percent,
    seconds=wording.seconds,
    shown=wording.shown,
    visible=visible,
    value=wording.value,
    ticks=_ticks,
)
_environment.globals.update(
    ago=wording.ago,
    moment=wording.moment,
    spark=charts.spark,
    stacked=charts.stacked,
    version=version("tasktrail"),
)


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page.

    Args:
        request: ``url_for`` of the template leads to routes below the prefix that it came by.
        template: file in ``templates``.
        status: the HTTP status.
        **context: the names that the template knows; one that is missing is an error.
    """

    def url_for(name: str, /, **path: Any) -> str:
        return request.url_for(name, **path).path

    def link(name: str, /, query: Any = (), **path: Any) -> str:
        asked = urlencode(query, doseq=True)
        return url_for(name, **path) + (f"?{asked}" if asked else "")

    page = _environment.get_template(template)
    return HTMLResponse(page.render(request=request, url_for=url_for, link=link, **context), status)
