"""Measures everything, stores it, and writes the page of the documentation that shows it.

    python -m bench [--quick] [--only NAME] [--page]

Each program runs by itself, in turn; what it found goes into ``bench/figures.json``. The page
``docs/reference/figures.md`` and the figures of the README are made from that file, never by hand: ``--page``
makes them again without measuring. On two cores it takes below twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.report import Report, markdown
from bench.stand import console

ROOT: Final = Path(__file__).parents[1]
STORED: Final = ROOT / "bench/figures.json"
PAGE: Final = ROOT / "docs/reference/figures.md"
README: Final = ROOT / "README.md"
MARKS: Final = ("<!-- figures: made by `python -m bench --page` -->", "<!-- end of figures -->")

PROGRAMS: Final = {
    "transitions": (),
    "tracked_vs_bare": ("--jobs", "2000"),
    "producer_memory": ("--rows", "200000"),
    "operations": ("--rows", "100000"),
    "migration": ("--rows", "300000", "--memory", "10000"),
    "monitoring": ("--rows", "10000000", "--rounds", "40"),
}
"""What is run, in this order, and at which size."""

QUICK: Final = {
    "transitions": ("--rows", "50", "--rounds", "1"),
    "tracked_vs_bare": ("--jobs", "300", "--rounds", "1", "--no-low-load"),
    "producer_memory": ("--rows", "200000"),
    "operations": ("--rows", "2000"),
    "migration": ("--rows", "20000", "--memory", "10000"),
    "monitoring": ("--rows", "100000", "--rounds", "5"),
}
"""The same to see whether it runs; its figures are not stored."""

PREFACE: Final = """# Figures

What tasktrail costs and how fast it is, each figure beside a peer or the raw limit that was measured in the
same run. Measured on {day} by `make bench` on {cores} cores, which wrote this page, too. Ratios are what
carries over to another machine; absolute figures are those of one machine at one moment. How to read and
repeat them: [bench](../../bench/README.md).

A target that was not met says so. Where a peer is faster, this is why:

- **Bare Celery** writes nothing down. A tracked job is claimed and completed in PostgreSQL, two commits more.
- **PgQueuer and procrastinate** keep their queue in PostgreSQL and need no broker, so a job takes one system
  less. PgQueuer takes and acknowledges jobs in batches, eight at a time here, and forgets those that are
  done; tasktrail claims each job by itself, so that a worker which dies takes one lease with it, and keeps
  the row.
- **One raw INSERT ... SELECT** leaves no ledger, keeps no raw rows, and cannot be interrupted. The copy
  writes a ledger row for each legacy row, with two indexes of its own.
- **The raw checksums** read what is stored. Ours transform each legacy row once more, to compare that.
- **One raw UPDATE** of failed rows sends no message, holds all their locks until its end, and cannot be
  stopped and gone on with.
- **A raw INSERT** of a row checks no field of it, and asks nobody whether the row is there already.
- **What one would write first** is faster where a state has few rows: the list then costs no more than its
  transaction, its statement timeout and its bounded count, which the first thought does without.
- **Search for a text** that no index serves is cut off after 0.3 s, and its count costs as much again.
"""


def measure(sizes: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Run the programs, and return what they found."""
    found: dict[str, Any] = {"measured_at": datetime.now(UTC).isoformat(timespec="minutes"), "reports": {}}
    with tempfile.TemporaryDirectory(prefix="tasktrail-bench-") as folder:
        for name, options in sizes.items():
            path = Path(folder) / f"{name}.json"
            began = time.monotonic()
            command = [sys.executable, "-m", f"bench.{name}", *options, "--json", str(path)]
            console.rule(f"{name} {' '.join(options)}")
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
            if code or not path.exists():
                raise SystemExit(f"bench.{name} ended with exit code {code}; nothing was stored")
            found["reports"][name] = json.loads(path.read_text(encoding="utf-8"))
            console.print(f"[dim]{time.monotonic() - began:.0f} s[/]")
    return found


def reports(found: dict[str, Any]) -> list[Report]:
    """Return what is stored, in the order of the programs."""
    return [Report.of(found["reports"][name]) for name in PROGRAMS if name in found["reports"]]


def page(found: dict[str, Any]) -> str:
    """Return the page of the documentation."""
    all_of_them = reports(found)
    cores = all_of_them[0].settings["cores"]
    return PREFACE.format(day=found["measured_at"][:10], cores=cores) + "\n" + markdown(all_of_them)


HIGHLIGHTS: Final = {
    "tracked, Redis": "jobs a second, tracked, on Redis",
    "tracked, RabbitMQ": "the same on RabbitMQ",
    "result backend, Redis": "Celery's result backend instead, on Redis",
    "procrastinate": "procrastinate instead, no broker",
    "PgQueuer": "PgQueuer instead, no broker",
    "backfill with ledger": "legacy rows copied a second, with ledger",
    "verify: checksums": "their verification by checksums",
    "overview 24h": "the overview of 10,000,000 rows, 24 h",
    "list: all": "a page of jobs there",
}
"""What the README shows: what a figure's name holds, and how it is said there."""


def highlights(found: dict[str, Any]) -> str:
    """Return the few figures that the README shows."""
    lines = ["| what | median or p95 | beside | ratio |", "| --- | ---: | --- | ---: |"]
    figures = [figure for report in reports(found) for figure in report.figures]
    for part, said in HIGHLIGHTS.items():
        figure = next((one for one in figures if part in one.what), None)
        if figure is not None:
            _, value, beside, ratio, _ = figure.cells
            lines.append(f"| {said} | {value} | {beside} | {ratio} |")
    return "\n".join(lines)


def with_highlights(readme: str, found: dict[str, Any]) -> str:
    """Return the README with these figures between their marks."""
    begin, end = map(re.escape, MARKS)
    block = f"{MARKS[0]}\n\n{highlights(found)}\n\n{MARKS[1]}"
    return re.sub(f"{begin}.*{end}", lambda _: block, readme, flags=re.DOTALL)


def write_pages() -> None:
    """Write what is made from the stored figures."""
    found = json.loads(STORED.read_text(encoding="utf-8"))
    PAGE.write_text(page(found), encoding="utf-8")
    README.write_text(with_highlights(README.read_text(encoding="utf-8"), found), encoding="utf-8")


def main() -> None:
    """Measure, print, store, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing stored: does it run?")
    parser.add_argument(
        "--only", action="append", choices=PROGRAMS, help="measure these anew, keep the others"
    )
    parser.add_argument("--page", action="store_true", help="make the page from what is stored")
    options = parser.parse_args()
    if not options.page:
        sizes = {
            name: size
            for name, size in (QUICK if options.quick else PROGRAMS).items()
            if not options.only or name in options.only
        }
        began = time.monotonic()
        found = measure(sizes)
        for report in reports(found):
            console.print(report.table)
        load = os.getloadavg()[0]
        console.print(
            f"{len(sizes)} programs in {time.monotonic() - began:.0f} s; load at the end {load:.1f}"
        )
        if options.quick:
            return
        if options.only and STORED.exists():
            before = json.loads(STORED.read_text(encoding="utf-8"))["reports"]
            found["reports"] = {**before, **found["reports"]}
        STORED.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_pages()


if __name__ == "__main__":
    main()
