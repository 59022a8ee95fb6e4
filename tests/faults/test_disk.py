"""A disk that runs full at any moment of an erasure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Ground
from tests.faults.nursery import Child
from tests.faults.points import fill
from tests.faults.test_kill import boundaries

pytestmark = pytest.mark.slow

FREE_KIB = (*range(0, 96, 8), *range(96, 480, 32), 1024)
EVERY = 7  # boundaries


def test_an_erasure_on_a_disk_with_too_little_room_ends_well_once_there_is_more(
    ground: Ground, one: dict[str, Any], small_disk: Path
) -> None:
    plan = ground.plan("one", [{"do": "erase", "what": one}])
    whole = ground.copy()
    ground.go_on(whole, plan)
    expected = ground.settle(whole)
    outcomes = set()

    for free in FREE_KIB:
        home = ground.copy(small_disk)
        ballast = fill(small_disk, free)
        outcomes.add(full(ground.drive(home, plan)))
        ballast.unlink()
        assert ground.settle(home, erase=one) == expected, free
    assert outcomes == {0, 1}


def test_an_erasure_whose_disk_runs_full_in_any_step_ends_well_once_there_is_room(
    ground: Ground, one: dict[str, Any], small_disk: Path
) -> None:
    plan = ground.plan("one", [{"do": "erase", "what": one}])
    whole = ground.copy()
    names = boundaries(ground, whole, plan)
    expected = ground.settle(whole)
    outcomes = set()

    for number in range(0, len(names), EVERY):
        home = ground.copy(small_disk)
        point = {"target": number, "action": "fill", "where": str(small_disk)}
        outcomes.add(full(ground.drive(home, plan, point)))
        (small_disk / "ballast").unlink()
        assert ground.settle(home, erase=one) == expected, (number, names[number])
    assert outcomes == {0, 1}


def full(child: Child) -> int:
    """Exit code; where it is not 0, the last line of the log says what to do."""
    code, log = child.wait(), child.log()
    if code:
        last = log.strip().splitlines()[-1]
        assert "cluster.errors" in last or "KeyFileError" in last, log
        assert "space" in last, log
    return code
