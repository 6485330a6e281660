"""Pages that are made from what they describe: requests of the API, and blocks that are not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT, Block

METHODS = ("get", "post", "put", "patch", "delete")
LIMITS = {
    "minimum": "from {}",
    "maximum": "to {}",
    "minLength": "from {} characters",
    "maxLength": "to {} characters",
    "maxItems": "up to {}",
}
WIDEST = {2**31 - 1, 2**63 - 1}
"""Limits that are those of the database's types, and say nothing."""


def requests_page(document: Mapping[str, Any]) -> str:
    """Return the page of all requests of the API.

    Args:
        document: its OpenAPI document.
    """
    lines = [
        "# REST API: every request",
        "",
        "Made from the OpenAPI document, which the application serves at `/api/openapi.json`; a test",
        "compares this page with it. [REST API](rest.md) has filters, errors and who may do what.",
        "",
        "`?` stands after what may be left out, and *or null* after a type that may be empty.",
        "",
        "## Requests",
    ]
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                lines += ["", f"### {method.upper()} {path}", "", *_operation(operations[method])]
    lines += ["", "## Documents"]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += ["", f"### {name}", "", *_schema(schema)]
    return "\n".join(lines) + "\n"


def not_run_page(left_out: Iterable[Block]) -> str:
    """Return the page of all blocks that are not run.

    Args:
        left_out: the blocks, in the order of their pages.
    """
    lines = [
        "# What is not run",
        "",
        "The code, the commands and the SQL of how-to guides, explanations and runbooks are run by a test,",
        "those of the tutorials by copy and paste in an empty folder. These blocks are not. Each says why in",
        "the source of its page; this list is made from that, and a test compares it.",
        "",
        "| page | begins with | why it is not run |",
        "| --- | --- | --- |",
    ]
    for block in left_out:
        page = block.page.relative_to(ROOT / "docs")
        first = next(line for line in block.text.splitlines() if line.strip()).replace("|", "\\|")
        lines.append(f"| [{_title(block.page)}](../{page}) | `{first.strip()}` | {block.not_run} |")
    return "\n".join(lines) + "\n"


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    yield (operation.get("description") or operation.get("summary", "")).replace("``", "`")
    rows = [
        (
            f"`{parameter['name']}`{'' if parameter.get('required') else '?'}",
            parameter["in"],
            _type(parameter.get("schema", {})),
            parameter.get("description") or parameter.get("schema", {}).get("description") or "",
        )
        for parameter in operation.get("parameters", [])
    ]
    if rows:
        yield from ("", *_table(("parameter", "in", "type", "meaning"), rows))
    body = operation.get("requestBody", {}).get("content", {})
    for kind, content in body.items():
        yield from ("", f"Body ({kind}): {_type(content['schema'])}.")
    for status, response in sorted(operation["responses"].items()):
        if not status.startswith("2"):
            continue
        answers = [
            f"{kind}: {_type(content['schema'])}" if content.get("schema") else kind
            for kind, content in response.get("content", {}).items()
        ]
        yield from ("", f"Answers {', '.join([status, *answers])}.")


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    if schema.get("description"):
        yield from (schema["description"].replace("``", "`"), "")
    if "enum" in schema:
        yield f"One of {', '.join(f'`{one}`' for one in schema['enum'])}."
        return
    required = schema.get("required", [])
    rows = [
        (f"`{name}`{'' if name in required else '?'}", _type(field), field.get("description") or "")
        for name, field in schema.get("properties", {}).items()
    ]
    yield from _table(("field", "type", "meaning"), rows)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Return a table, without its last column where that is empty throughout."""
    wide = len(heads) if any(row[-1] for row in rows) else len(heads) - 1
    yield f"| {' | '.join(heads[:wide])} |"
    yield f"| {' | '.join(['---'] * wide)} |"
    for row in rows:
        yield f"| {' | '.join(_cell(cell) for cell in row[:wide])} |"


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in a few words, with a link where it has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        inner = [one for one in schema["anyOf"] if one.get("type") != "null"]
        words = " or ".join(map(_type, inner))
        return f"{words} or null" if len(inner) < len(schema["anyOf"]) else words
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    inner = schema.get("items") if schema.get("type") == "array" else schema.get("additionalProperties")
    if isinstance(inner, Mapping):
        return f"{'list' if schema['type'] == 'array' else 'object'} of {_type(inner)}"
    return " ".join([schema.get("format") or schema.get("type") or "anything", *_limits(schema)])


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    for key, words in LIMITS.items():
        if key in schema and schema[key] not in WIDEST:
            yield words.format(schema[key])
    if schema.get("default") not in (None, [], ""):
        yield f"by default `{schema['default']}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
