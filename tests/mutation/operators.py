"""Mutations that cosmic-ray does not know: of conditions, columns and refusals, and of SQL in texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from cosmic_ray.operators.operator import Operator
from parso.python.tree import String

Position = tuple[tuple[int, int], tuple[int, int]]

SELECTIVE: Final = frozenset({"and_", "returning", "values", "where"})
"""Functions of SQLAlchemy of whose arguments each can be left out."""

SQL: Final = (
    (r"\bAND\b", "OR"),
    (r"\bOR\b", "AND"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bIS NOT (NULL|TRUE|FALSE)\b", r"IS \1"),
    (r"(?<!IS )\bNOT (?=[A-Z(])", ""),
    (r"(?<!NOT )\b(IN|BETWEEN|EXISTS)\b", r"NOT \1"),
    (r"(?<![<>!]) = ", " <> "),
    (r" <> ", " = "),
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r"(?<!!)~ '", "!~ '"),
    (r"!~ '", "~ '"),
    (r"\bELSE\b", "WHEN FALSE THEN"),
    (r"\bWHEN\b", "WHEN NOT"),
    (r"\bcoalesce\(", "nullif("),
    (r"(?<![\w'\"%.-])(\d+)(?![\w'\"-])", lambda found: str(int(found[0]) + 1)),
    (r"'(\w[\w -]*)'", r"'\1?'"),
)
"""What is looked for in a text that holds SQL, and what takes its place."""

TEXTS: Final = frozenset({"string", "fstring_string"})


class _Editor(Operator):
    """Replaces a node by other code; a subclass says which."""

    def edits(self, node: Any) -> Iterator[str]:
        """Yield the code of each mutant of a node."""
        raise NotImplementedError

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        return ((node.start_pos, node.end_pos) for _ in self.edits(node))

    def mutate(self, node: Any, index: int) -> Any:
        return String(list(self.edits(node))[index], node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DropElement(_Editor):
    """Leaves out one element of a tuple, list, set or dict, or one argument of a ``SELECTIVE`` call."""

    def edits(self, node: Any) -> Iterator[str]:
        is_call = node.type == "trailer" and node.children[0].value == "("
        is_display = node.type == "atom" and node.children[0].value in "([{"
        if not (is_call or is_display) or len(node.children) != 3:
            return
        if is_call and node.get_previous_leaf().value not in SELECTIVE:
            return
        inner = node.children[1]
        is_listed = inner.type in {"testlist_comp", "dictorsetmaker", "arglist"}
        children = inner.children if is_listed else [inner]
        if any(child.type in {"sync_comp_for", "comp_for"} for child in children):
            return
        commas = [
            number for number, child in enumerate(children) if child.type == "operator" and child.value == ","
        ]
        if is_display and node.children[0].value == "(" and not commas:
            return  # parentheses, or texts in a row
        elements = [children[low + 1 : high] for low, high in pairwise([-1, *commas, len(children)])]
        texts = ["".join(part.get_code() for part in element) for element in elements if element]
        opening, closing = node.children[0].value, node.children[2].value
        tail = "," if opening == "(" and is_display else ""
        for number in range(len(texts)):
            rest = texts[:number] + texts[number + 1 :]
            yield f"{opening}{','.join(rest)}{tail if rest else ''}{closing}"


class DropCall(_Editor):
    """Leaves out a statement that only calls something."""

    def edits(self, node: Any) -> Iterator[str]:
        is_alone = node.parent is not None and node.parent.type == "simple_stmt"
        if is_alone and node.type in {"atom_expr", "power"} and node.children[-1].type == "trailer":
            yield "pass"


class ChangeSql(_Editor):
    """Changes one word of SQL in a text."""

    def edits(self, node: Any) -> Iterator[str]:
        if node.type not in TEXTS or _is_docstring(node):
            return
        quotes = re.match(r"""[a-zA-Z]*('{3}|"{3}|'|")""", node.value) if node.type == "string" else None
        start, end = (quotes.end(), len(node.value) - len(quotes[1])) if quotes else (0, len(node.value))
        for pattern, replacement in SQL:
            for found in re.finditer(pattern, node.value):
                if start <= found.start() and found.end() <= end:
                    new = replacement(found) if callable(replacement) else found.expand(replacement)
                    yield node.value[: found.start()] + new + node.value[found.end() :]


def _is_docstring(node: Any) -> bool:
    return node.type == "string" and node.parent.type in {"simple_stmt", "file_input"}


OPERATORS: Final = {operator.__name__: operator for operator in (ChangeSql, DropCall, DropElement)}
