"""What a benchmark found, in a form that a table and a page of the documentation are made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value beside its peer's, which was measured in the same run.

    Attributes:
        what: what was measured.
        value: the median, in ``unit``.
        unit: of ``value`` and ``peer_value``.
        peer: what it stands beside; empty for nothing.
        peer_value: the peer's median.
        ratio: of the two, round by round where there are rounds; above 1 is more than the peer.
        target: what it should come to; empty where nobody said.
        met: whether it does; ``None`` without a target.
    """

    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """It as a line of a table."""
        said = {None: "", True: "met", False: "NOT met"}[self.met]
        return (
            self.what,
            shown(self.value, self.unit),
            f"{self.peer}: {shown(self.peer_value, self.unit)}" if self.peer_value is not None else self.peer,
            "" if self.ratio is None else shown(self.ratio),
            f"{self.target}: {said}" if self.target else "",
        )


HEADINGS = ("what", "median", "beside", "ratio", "target")


@dataclass
class Report:
    """What one program found.

    Attributes:
        title: what it is about.
        how: how it was measured, in a sentence or two.
        settings: what the figures depend on.
        figures: what was found.
    """

    title: str
    how: str
    settings: dict[str, str]
    figures: list[Figure] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        """Add figures."""
        self.figures.extend(figures)

    @property
    def table(self) -> Table:
        """The figures as a table for a terminal."""
        table = Table(title=self.title, title_justify="left")
        for number, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="right" if number in (1, 3) else "left")
        for figure in self.figures:
            table.add_row(*figure.cells)
        return table

    def write(self, path: Path) -> None:
        """Store it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Report:
        """Return what was stored."""
        figures = [Figure(**one) for one in stored["figures"]]
        return cls(stored["title"], stored["how"], stored["settings"], figures)


def shown(value: float, unit: str = "") -> str:
    """Write a number with as many digits as mean something, and its unit."""
    if 0 < abs(value) < 0.1:
        return f"{value:.1g} {unit}".rstrip()
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def markdown(reports: Iterable[Report]) -> str:
    """Return the reports as tables of a page, each with how it was measured."""
    parts: list[str] = []
    for report in reports:
        settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
        lines = [
            "| " + " | ".join(HEADINGS) + " |",
            "| --- | ---: | --- | ---: | --- |",
            *("| " + " | ".join(figure.cells).replace("|  |", "| |") + " |" for figure in report.figures),
        ]
        parts += [f"## {report.title}", report.how, "\n".join(lines), f"Measured with {settings}."]
    return "\n\n".join(parts) + "\n"
