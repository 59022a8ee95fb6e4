"""A coordinator is paused, another takes over, and the first one goes on as if it still could."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.coordinator.ledger.postgres import Server
from tests.coordinator.systems import files_of
from tests.faults.conftest import Ground
from tests.faults.nursery import Child
from tests.faults.plan import records
from tests.faults.servers import copy_with_database, fit_on_server
from tests.faults.test_kill import boundaries

pytestmark = pytest.mark.slow

LEASE = "1s"
STOPS = {
    "while staging": ("before rename segment", 1),
    "before promotion": ("before rename content", 1),
    "before training": ("before pool.map build", 0),
    "after training": ("after pool.map build", 0),
    "before publication": ("before publish", 0),
    "after publication": ("after publish", 0),
    "before the purge": ("after pool.tell release", 0),
    "in the purge": ("before unlink segment", 0),
    "later in the purge": ("after unlink segment", 1),
    "before completion": ("before complete", 0),
}
MID_TRANSACTION = {"in mid-transaction": ("after generation row", 0)}  # ended by the server
ON_SERVER = ("while staging", "before publication", "in the purge", *MID_TRANSACTION)


@pytest.fixture(scope="module")
def other() -> dict[str, Any]:
    """What the second coordinator is asked for besides."""
    ids = sorted(records().labels, key=str)
    return {"nodes": ids[40:41], "labels": ids[41:43]}


@pytest.fixture(scope="module")
def plan(ground: Ground, one: dict[str, Any]) -> str:
    return ground.plan("paused", [{"do": "erase", "what": one}])


@pytest.fixture(scope="module")
def names(ground: Ground, plan: str) -> list[str]:
    return boundaries(ground, ground.copy(), plan)


@pytest.fixture(scope="module")
def expected(ground: Ground, plan: str, other: dict[str, Any]) -> dict[str, Any]:
    home = ground.copy()
    ground.go_on(home, plan)
    return ground.settle(home, erase=other)


def stop_at(names: list[str], stop: str) -> int:
    """Number of the boundary."""
    begin, which = (STOPS | MID_TRANSACTION)[stop]
    return [number for number, name in enumerate(names) if name.startswith(begin)][which]


def pause(child: Child) -> None:
    """Wait until a child stopped itself."""
    path = Path(f"/proc/{child.pid}/stat")
    while path.read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.01)


def things(home: Path) -> Any:
    """Every object and key as files, and what is staged."""
    staged = [p for p in (home / "staging").rglob("*") if p.is_file() and p.stat().st_size]
    return files_of(home), sorted(p.name for p in (home / "keys").rglob("*")), staged


def overtake(ground: Ground, home: Path, child: Child, other: dict[str, Any]) -> dict[str, Any]:
    """Let a second coordinator finish everything, then have the paused one go on."""
    pause(child)
    report = ground.root / f"{home.name}.second"
    ground.nursery.run(
        "tests.faults.checks:take_over", home=str(home), report=str(report), erase=other
    )
    before = things(home)
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait() == 1, child.log()
    assert "LeaseError" in child.log(), child.log()
    assert things(home) == before
    found: dict[str, Any] = json.loads(report.read_text())
    assert ground.settle(home) == found
    return found


@pytest.mark.parametrize("stop", STOPS)
def test_a_coordinator_that_was_paused_changes_nothing_any_more(
    stop: str,
    ground: Ground,
    names: list[str],
    plan: str,
    other: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    home = ground.copy(erasure_lease=LEASE)
    point = {"target": stop_at(names, stop), "action": "stop"}
    child = ground.drive(home, plan, point)

    assert overtake(ground, home, child, other) == expected


# ---- on PostgreSQL


@pytest.fixture(scope="module")
def fitted(ground: Ground, server: Server) -> tuple[Path, str]:
    return fit_on_server(ground, server, "on-server", **{"erasure.lease": LEASE})


@pytest.mark.parametrize(
    "stop", ["while staging", "before publication", "in the purge", *MID_TRANSACTION]
)
def test_a_coordinator_that_was_paused_changes_nothing_on_a_server_either(
    stop: str,
    ground: Ground,
    server: Server,
    fitted: tuple[Path, str],
    plan: str,
    other: dict[str, Any],
) -> None:
    whole = copy_with_database(ground, server, fitted)
    names = boundaries(ground, whole, plan)
    expected = ground.settle(whole, erase=other)
    number = stop_at(names, stop)
    home = copy_with_database(ground, server, fitted)
    child = ground.drive(home, plan, {"target": number, "action": "stop"})

    assert overtake(ground, home, child, other) == expected
