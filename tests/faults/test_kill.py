"""SIGKILL of coordinator, worker or both, at every step boundary and at random instants."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Ground
from tests.faults.nursery import Child
from tests.faults.plan import OVERRIDES, Step

pytestmark = pytest.mark.slow

INSTANTS = 50
FIT_POINTS = 10
VICTIMS = ("coordinator", "worker", "group")


def boundaries(ground: Ground, home: Path, plan: str) -> list[str]:
    """Names of the step boundaries that a plan passes when nothing happens."""
    trace = ground.root / f"{home.name}.trace"
    child = ground.drive(home, plan, {"trace": str(trace)})
    assert child.wait() == 0, child.log()
    return trace.read_text().splitlines()


def distinct(names: Sequence[str]) -> list[tuple[int, str]]:
    """Boundaries with something durable between each two: the end of one step begins the next."""
    following = [*names[1:], ""]
    return [
        (number, name)
        for number, (name, after) in enumerate(zip(names, following, strict=True))
        if not (name.startswith("after") and after.startswith("before"))
    ]


def test_an_erasure_that_is_killed_at_any_boundary_ends_as_if_nothing_had_happened(
    ground: Ground, one: dict[str, Any]
) -> None:
    plan = ground.plan("one", [{"do": "erase", "what": one}])
    whole = ground.copy()
    names = boundaries(ground, whole, plan)
    expected = ground.settle(whole)
    for number, name in distinct(names):
        home = ground.copy()
        child = ground.drive(home, plan, {"target": number})
        assert child.wait() == -signal.SIGKILL, (number, name, child.log())
        found = ground.settle(home, erase=one)
        assert found == expected, (number, name)


def test_a_fit_that_is_killed_goes_on_to_the_same_keys(ground: Ground) -> None:
    plan = ground.plan("empty", [])
    names = boundaries(ground, ground.root / "fit", plan)
    expected = ground.settle(ground.root / "fit")

    for number in range(0, len(names), max(1, len(names) // FIT_POINTS)):
        home = ground.root / f"fit-{number}"
        child = ground.drive(home, plan, {"target": number})
        assert child.wait() == -signal.SIGKILL, (number, names[number], child.log())
        assert ground.settle(home) == expected, (number, names[number])


def test_forty_requests_killed_at_random_instants_all_come_to_their_end(
    ground: Ground, forty: list[Step]
) -> None:
    plan, whole = ground.plan("forty", forty), ground.copy()
    started = time.monotonic()
    ground.go_on(whole, plan)
    seconds = time.monotonic() - started
    expected = ground.settle(whole)
    assert len(expected["requests"]) == 40

    rng, hits = random.Random(4), 0
    for number in range(INSTANTS):
        home = ground.copy()
        child = ground.drive(home, plan)
        time.sleep(rng.uniform(0.02, seconds))
        hits += strike(child, VICTIMS[number % len(VICTIMS)])
        ground.go_on(home, plan)
        assert ground.settle(home) == expected, number
    assert hits > INSTANTS // 2


def strike(child: Child, victim: str) -> bool:
    """Kill one process or the group; whether that ended the coordinator before its time."""
    with suppress(ProcessLookupError):
        if victim == "worker":
            os.kill(child.workers[0], signal.SIGKILL)
        elif victim == "coordinator":
            os.kill(child.pid, signal.SIGKILL)
        else:
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait() != 0 or victim == "worker"


def test_a_coordinator_started_from_the_shell_is_killed_with_all_its_children(
    ground: Ground, forty: list[Step], tmp_path: Path
) -> None:
    """The same with nothing forked or patched: an interpreter of its own and its own worker."""
    plan, acks = ground.plan("forty", forty), tmp_path / "acks"
    home, whole = ground.copy(), ground.copy()
    ground.go_on(whole, plan)
    arguments = {"home": str(home), "plan": plan, "acks": str(acks)} | OVERRIDES
    command = [sys.executable, "-m", "tests.faults.driver", json.dumps(arguments)]
    for enough in (1, 12, 30):
        process = subprocess.Popen(command, start_new_session=True)
        while process.poll() is None and acknowledged(acks) < enough:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    assert ground.settle(home) == ground.settle(whole)


def acknowledged(acks: Path) -> int:
    """Number of steps that were acknowledged so far."""
    return len(acks.read_text().splitlines()) if acks.exists() else 0
