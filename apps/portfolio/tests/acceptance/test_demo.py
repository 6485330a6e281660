"""``portfolio demo`` in an empty folder, the way somebody tries it for the first time; and a second time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.commands import Outcome, program, run_apart
from tests.waiting import until

SUMMARY = """\
61 COMPLETED, 1 FAILED of 62 tracked updates
failed: 2026-10-24, NothingPublished: no rates are published for 2026-10-24: 2026-10-24 is a Saturday
retries: 2 failed attempts of 2026-08-07 before it completed
rates stored: 610, counted by the jobs: 610
the database says so
4. adding 5 ETFs with their prices from 2021-01-01 to 2021-12-31; the rates come through the rates job
"""
PRICES = """\
prices stored: 1260, for 5 ETFs on 252 trading days: 1260
prices that are the price in dollars by the ECB's rate, to the sixth decimal: 1260
updates of exchange rates for them: 251 COMPLETED, for 251 days
the database says so
"""
END = """\
prices of 2022-01-03: 5
the database says so
"""
ACCOUNTED = "every row is accounted for\n"
HAS_LEGACY = find_spec("portfolio.legacy") is not None
PRICE = re.compile(
    r"^ *([A-Z]{4}) +COMPLETED +252 +Fri 2021-12-31 +([0-9.]+) +([0-9.]+) +([0-9.]+) ", re.MULTILINE
)
DAILY = re.compile(
    r"^ *(\w{3} \d{4}-\d\d-\d\d) +(exchange_rates|etf_prices) +(\w+) +(found|none) +(.*?) *$", re.MULTILINE
)
ROW = re.compile(r"^ *(\d+) +(\w{3} \d{4}-\d\d-\d\d) +(COMPLETED|FAILED) +(\d+)/10 +(\d) ", re.MULTILINE)


def serving(folder: Path, environment: dict[str, str | None]) -> Outcome:
    """Run the short demonstration until it serves the dashboard, look at it with its token, and end it."""
    given = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    said = folder / "said"
    command = [program("portfolio"), "demo", "--short", "--serve"]
    with said.open("wb") as output, (folder / "complained").open("wb") as complaints:
        demo = subprocess.Popen(command, cwd=folder, env=given, stdout=output, stderr=complaints)
    try:
        until(lambda: "End it with Ctrl-C" in said.read_text() or demo.poll() is not None, seconds=200)
        (url,) = re.findall(r"^dashboard: (\S+)/$", said.read_text(), re.MULTILINE)
        (token,) = re.findall(r"^token: +(tt_\S+)$", said.read_text(), re.MULTILINE)
        until(lambda: answers(url), seconds=60)
        seen = httpx.get(f"{url}/api/domains", headers={"Authorization": f"Bearer {token}"}).json()
        assert "exchange_rate" in str(seen)
        assert httpx.get(f"{url}/api/domains").status_code == 401
    finally:
        demo.send_signal(signal.SIGTERM)
        code = demo.wait(60)
    outcome = Outcome(code, said.read_text(), (folder / "complained").read_text())
    for file in (said, folder / "complained"):
        file.unlink()
    return outcome


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.timeout(600)  # two minutes on an idle machine; the demo has deadlines of its own
def test_the_demo_does_what_it_says_and_a_second_run_finds_it_done(project_folder: Path) -> None:
    servers_of_its_own = {"TASKTRAIL_DATABASE_URL": None, "TASKTRAIL_BROKER_URL": None}
    environment = {**servers_of_its_own, "TASKTRAIL_HOME": str(project_folder / "home"), "COLUMNS": "200"}

    first = run_apart("portfolio", "demo", cwd=project_folder, env=environment, patience=400)
    second = serving(project_folder, environment)

    assert (first.code, first.err) == (0, "")
    assert (second.code, second.err) == (0, "")
    assert "62 new rows, 0 were there already" in first.out
    assert "0 new rows, 62 were there already" in second.out
    assert re.findall(r"\d+ new rows, \d+ were there already", second.out) == [
        f"0 new rows, {count} were there already" for count in (62, 5, 6)
    ]
    for outcome in (first, second):
        assert SUMMARY in outcome.out
        assert PRICES in outcome.out
        assert END in outcome.out
        prices = {symbol: (usd, rate, eur) for symbol, usd, rate, eur in PRICE.findall(outcome.out)}
        assert sorted(prices) == ["MTUM", "QUAL", "SIZE", "USMV", "VLUE"]
        assert prices["MTUM"] == ("176.788", "1.1326", "156.09")
        assert [line[:4] for line in DAILY.findall(outcome.out)] == [
            (day, update_type, "COMPLETED", data)
            for day, data in (
                ("Mon 2022-01-03", "found"),
                ("Fri 2021-04-02", "none"),
                ("Sat 2021-12-18", "none"),
            )
            for update_type in ("exchange_rates", "etf_prices")
        ]
    assert first.out.endswith(ACCOUNTED if HAS_LEGACY else END)
    assert ("drop                 the legacy tables are gone" in first.out) is HAS_LEGACY
    assert END in second.out
    assert second.out.endswith("End it with Ctrl-C.\n")
    rows = ROW.findall(first.out)
    assert len(rows) == 62
    assert rows == ROW.findall(second.out)
    assert ("Fri 2026-08-07", "COMPLETED", "10", "2") in [row[1:] for row in rows]
    assert [row[1:] for row in rows if row[2] == "FAILED"] == [("Sat 2026-10-24", "FAILED", "0", "1")]
    assert sorted(path.name for path in project_folder.iterdir()) == ["home"]
    assert list(project_folder.glob("home/*/run/*")) == []
