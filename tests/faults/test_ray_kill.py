"""SIGKILL of the coordinator or of a shard actor while it runs on Ray."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Ground
from tests.faults.plan import OVERRIDES, forty_requests, records
from tests.faults.test_kill import acknowledged

pytestmark = [pytest.mark.ray, pytest.mark.slow]

INSTANTS = 10
REQUESTS = 12
TRIES = 5
ACTOR = "ray::ShardActor"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One Ray cluster in a process of its own; the environment that joins it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    folder = tmp_path_factory.mktemp("cluster")
    code = (
        "import ray, sys, time; from pathlib import Path\n"
        "context = ray.init(address='local', include_dashboard=False, num_cpus=2, "
        "object_store_memory=100 * 1024**2, log_to_driver=False)\n"
        f"Path({str(folder / 'address')!r}).write_text(context.address_info['address'])\n"
        "sys.stdin.read()\n"
    )
    head = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, env=os.environ | token
    )
    deadline = time.monotonic() + 120
    while not (folder / "address").exists() and time.monotonic() < deadline:
        assert head.poll() is None
        time.sleep(0.1)
    yield token | {"RAY_ADDRESS": (folder / "address").read_text()}
    assert head.stdin is not None
    head.stdin.close()
    head.wait(60)


def actors() -> set[int]:
    """Pids of the shard actors on this machine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_text().startswith(ACTOR):
                found.add(int(path.parent.name))
    return found


def test_requests_on_ray_killed_at_random_instants_all_come_to_their_end(
    ground: Ground, address: dict[str, str], tmp_path: Path
) -> None:
    plan = ground.plan("twelve", forty_requests(records(), number=REQUESTS))
    steps = len(json.loads(Path(plan).read_text()))
    whole = ground.copy()
    ground.go_on(whole, plan)
    expected = ground.settle(whole)
    rng = random.Random(4)
    home, before = ground.copy(), actors()

    for number in range(INSTANTS):
        if acknowledged(tmp_path / "acks") >= steps:  # the whole run is done: another one
            assert ground.settle(home) == expected
            home = ground.copy()
            (tmp_path / "acks").unlink()
        process = start(home, plan, tmp_path / "acks", address)
        wait_for_progress(process, tmp_path / "acks", rng)
        strike(process, number, before, rng)
    process = start(home, plan, tmp_path / "acks", address)
    assert process.wait() == 0
    assert ground.settle(home) == expected


def start(home: Path, plan: str, acks: Path, address: dict[str, str]) -> subprocess.Popen[bytes]:
    """A driver of its own that joins the cluster."""
    arguments: dict[str, Any] = {"home": str(home), "plan": plan, "acks": str(acks), "pool": "ray"}
    command = [sys.executable, "-m", "tests.faults.driver", json.dumps(arguments | OVERRIDES)]
    return subprocess.Popen(command, env=os.environ | address, start_new_session=True)


def wait_for_progress(process: subprocess.Popen[bytes], acks: Path, rng: random.Random) -> None:
    """Until some steps more are done, and then a moment."""
    goal = acknowledged(acks) + rng.randint(1, 5)
    while process.poll() is None and acknowledged(acks) < goal:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.3))


def strike(
    process: subprocess.Popen[bytes], number: int, others: set[int], rng: random.Random
) -> None:
    """Kill the driver, or an actor; an actor is started again, so the run is then let go on."""
    ours = sorted(actors() - others)
    if number % 2 and ours:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(ours), signal.SIGKILL)
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
