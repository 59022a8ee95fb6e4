"""The service under mixed traffic, a replica and a shard actor killed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SECONDS, TOLERANCE = 15, 1e-5


def test_no_answer_is_lost_mixed_or_stale_while_shards_retrain_and_processes_die() -> None:
    command = [sys.executable, "-m", "benchmarks.load", "--seconds", str(SECONDS), "--json"]

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400
    )

    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == {}
    assert found["predict calls"] > 50 and found["answers compared"] > 300
    assert all(found["killed"].values()) and len(found["killed"]) == 2
    assert found["erasures by state"] == {"completed": found["erasures acknowledged"]}
    assert found["erasures acknowledged"] >= 5 and found["generations"] > 3
    assert found["answers older than an acknowledgement"] == 0
    assert found["largest difference"] < TOLERANCE
    assert found["largest difference with erased rows left in"] > 100 * TOLERANCE
    assert found["log lines that name an id"] == 0
