"""The pages of the documentation, taken apart into their blocks of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

OUTPUT: Final = "text"
"""Language of what a program prints; right after a block that runs, its output must be like it."""

SHELLS: Final = frozenset({"sh", "bash", "console"})

DIRECTIVE: Final = re.compile(r"<!-- (not run|a worker|exit code|no rows)(?:: (.+?))? -->")
"""What comments before a block say: why it is not run, that a worker ran before it, how its command ends,
that its query is good when it finds nothing."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the file it is in.
        line: the line of its first fence.
        language: what stands after the fence; empty for nothing.
        text: what is between the fences.
        not_run: why it is not run, if the page says so.
        after_work: whether a worker took what was due before it.
        exit_code: how its last command ends.
        may_be_empty: whether its query may find nothing.
        output: what it prints, if the page shows that; ``…`` stands for anything.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None
    after_work: bool = False
    exit_code: int = 0
    may_be_empty: bool = False
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a block for the shell."""
        lines = self.text.splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        split = [shlex.split(line, comments=True) for line in lines]
        return [words for words in split if words]

    @property
    def shown(self) -> str | None:
        """What the block or the one after it shows of its output."""
        if self.language != "console":
            return self.output
        lines = [line for line in self.text.splitlines() if not line.startswith("$ ")]
        return "\n".join(lines)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order; what one prints belongs to it."""
    found: list[Block] = []
    for block, is_next in _fenced(page):
        if block.language == OUTPUT and is_next and found and found[-1].not_run is None:
            found[-1] = replace(found[-1], output=block.text)
        else:
            found.append(block)
    return found


def is_like(actual: str, shown: str) -> bool:
    """Say whether an output is what a page shows, where ``…`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in " ".join(shown.split()).split("…"))
    return re.fullmatch(pattern, " ".join(actual.split())) is not None


def _fenced(page: Path) -> Iterator[tuple[Block, bool]]:
    """Yield each block, and whether nothing stands between it and the one before."""
    directives: dict[str, str | None] = {}
    is_next = False
    opened: Block | None = None
    indent = ""
    for number, whole in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        line = whole.removeprefix(indent) if opened is not None else whole.lstrip(" ")
        if opened is not None:
            if line == "```":
                yield replace(opened, text=opened.text.removesuffix("\n")), is_next
                opened, directives, is_next = None, {}, True
            else:
                opened = replace(opened, text=f"{opened.text}{line}\n")
        elif line.startswith("```"):
            indent = whole[: len(whole) - len(line)]  # a block may belong to an item of a list
            opened = Block(
                page,
                number,
                line.removeprefix("```"),
                "",
                not_run=directives.get("not run"),
                after_work="a worker" in directives,
                exit_code=int(directives.get("exit code") or 0),
                may_be_empty="no rows" in directives,
            )
        elif directive := DIRECTIVE.fullmatch(line):
            directives[directive[1]] = directive[2]
            is_next = False
        elif line:
            is_next = False
