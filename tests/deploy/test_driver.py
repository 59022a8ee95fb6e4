"""``deploy/driver.py`` under ``ray job submit`` against a head that the test starts."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
START_S = 120  # what a head may take on a busy machine
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A running head and the environment its clients need."""

    dashboard: str
    environment: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """``ray start --head --block`` in a process group of its own, ended as a group."""
    folder = tmp_path_factory.mktemp("ray")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    port, dashboard = free_port(), free_port()
    command = [
        RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
        f"--dashboard-port={dashboard}", "--num-cpus=2", "--object-store-memory=100000000",
        f"--temp-dir={folder.resolve()}", "--include-dashboard=true",
    ]  # fmt: skip
    log = (folder / "head.log").open("wb")
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    yield Head(f"http://127.0.0.1:{dashboard}", environment)
    os.killpg(process.pid, 15)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)  # some of Ray's processes outlive SIGTERM
    process.wait()


def submit(head: Head, working_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Submit the driver and wait; tries again while the head is still starting."""
    command = [
        RAY, "job", "submit", "--address", head.dashboard, "--working-dir", str(working_dir),
        "--", sys.executable, "deploy/driver.py", *arguments,
    ]  # fmt: skip
    end = time.monotonic() + START_S
    while True:
        done = subprocess.run(
            command, env=head.environment, capture_output=True, text=True, check=False, timeout=240
        )
        is_up = "Failed to connect" not in done.stdout + done.stderr
        if is_up or time.monotonic() > end:
            return done


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, the driver and the presets, and nothing else."""
    folder = tmp_path_factory.mktemp("working-dir")
    for name in ("cluster", "shards", "coordinator", "configs", "deploy"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


def test_the_driver_does_the_main_job_under_ray_job_submit(
    head: Head, working_dir: Path, tmp_path: Path
) -> None:
    done = submit(
        head, working_dir, "--data", "sbm", "--home", str(tmp_path / "home"),
        "--set", "partition.num_shards=4", "--set", "shards.training_epochs=10",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"dataset"')]
    result = json.loads(lines[-1])
    assert result["shards"] == 4
    assert result["verify"] == {"ok": True, "replayed": 4, "same_as_scratch": True}
    assert (tmp_path / "home" / "ledger.db").exists()
