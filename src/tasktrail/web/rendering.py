"""Pages from templates; everything that is put into them is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = Path(__file__).parent / "static"

_environment: Final = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page.

    Args:
        request: ``url_for`` of the template leads to routes below the prefix that it came by.
        template: file in ``templates``.
        status: the HTTP status.
        **context: the names that the template knows; one that is missing is an error.
    """

    def url_for(name: str, **path: Any) -> str:
        return request.url_for(name, **path).path

    page = _environment.get_template(template)
    return HTMLResponse(page.render(request=request, url_for=url_for, **context), status)
