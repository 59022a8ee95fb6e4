"""A request that was acknowledged is there after a kill, a thousand times of a thousand."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery

pytestmark = pytest.mark.slow

CHILDREN = 1000
HERE = "tests.faults.acknowledged"


def test_a_thousand_requests_acknowledged_before_a_kill_are_all_there(
    tmp_path: Path,
) -> None:
    nursery = Nursery(tmp_path / "nursery", light=True)
    home, acks = str(tmp_path / "home"), str(tmp_path / "acks")
    nursery.run(f"{HERE}:fit", home=home)

    for number in range(CHILDREN):
        nursery.run(
            f"{HERE}:submit_and_die",
            -signal.SIGKILL,
            home=home,
            acks=acks,
            number=number,
        )

    nursery.run(f"{HERE}:find_all", home=home, acks=acks, number=CHILDREN)
    nursery.close()
