"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright


def require_chromium() -> str:
    """Return where Chromium is; skip the test without it, or fail it where all services must be there."""
    found = shutil.which("chromium")
    if found is None:
        missing = "Chromium is not installed (Debian's package chromium)"
        if os.environ.get("TASKTRAIL_REQUIRE_SERVICES") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser.

    Playwright keeps an event loop running for as long as it is there, which tests of coroutines cannot bear:
    so it ends with the module.
    """
    program = require_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
