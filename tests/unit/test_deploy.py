"""The files in deploy/ are what Docker, Compose, Kubernetes and systemd accept."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.commands import program

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes/portfolio.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

GRACE = 30
"""``TASKTRAIL_SHUTDOWN_GRACE`` in all of them, in seconds."""


def accepted(*command: str | Path) -> str:
    """Run a linter, which must find nothing, and return what it says."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_dockerfile_passes_its_linter() -> None:
    accepted(program("hadolint"), DEPLOY / "Dockerfile")


def test_compose_accepts_its_file() -> None:
    accepted(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_kubernetes_accepts_each_object() -> None:
    accepted(program("kubernetes-validate"), "--strict", KUBERNETES)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_each_unit(unit: Path, tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not installed: there is no systemd-analyze")
    # What the units start is not installed here.
    text = re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", unit.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / unit.name).write_text(text, encoding="utf-8")

    assert accepted(verify, "verify", "--man=no", tmp_path / unit.name) == ""


def test_whatever_stops_a_worker_waits_longer_than_its_grace() -> None:
    objects = list(yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8")))
    (pod,) = (
        one["spec"]["template"]["spec"] for one in objects if one["metadata"]["name"].endswith("worker")
    )
    service = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["worker"]
    unit = (DEPLOY / "systemd/tasktrail-worker@.service").read_text(encoding="utf-8")
    (stops_after,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    waits = [pod["terminationGracePeriodSeconds"], int(service["stop_grace_period"].removesuffix("s"))]

    assert min(*waits, int(stops_after)) >= GRACE + 15
    assert {"name": "TASKTRAIL_SHUTDOWN_GRACE", "value": str(GRACE)} in pod["containers"][0]["env"]
    assert service["environment"]["TASKTRAIL_SHUTDOWN_GRACE"] == str(GRACE)
    assert f"TASKTRAIL_SHUTDOWN_GRACE={GRACE}\n" in unit
    assert "KillMode=mixed\n" in unit


def test_no_password_is_written_down() -> None:
    setting = re.compile(r"^\s*\w*(?:PASSWORD|_PASS|TOKEN|SECRET)\w*[:=]\s*(\S+)", re.MULTILINE)
    for file in filter(Path.is_file, DEPLOY.rglob("*")):
        for secret in setting.findall(file.read_text(encoding="utf-8")):
            assert secret.startswith("${"), f"{file}: {secret}"
