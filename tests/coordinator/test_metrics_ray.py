"""What shard actors took is told at Ray's own endpoint."""

from __future__ import annotations

import time
import urllib.request

import pytest

from shards.config import ShardsConfig
from shards.recipe import choose_profile

PATIENCE_S = 60


@pytest.mark.ray
@pytest.mark.slow
def test_the_seconds_of_a_job_reach_the_nodes_endpoint() -> None:
    import ray

    from coordinator.pools.ray import RayPool

    config = ShardsConfig()
    pool = RayPool(choose_profile(config), config, 1, actors=1)
    pool.map("ping", [None])
    try:
        assert appears(ray.nodes()[0]["MetricsExportPort"])
    finally:
        pool.close()


def appears(port: int) -> bool:
    """Whether the metric can be read within PATIENCE_S."""
    wanted = "ray_unweave_shard_job_seconds_count{"
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as answer:
            text = answer.read().decode()
        found = [line for line in text.splitlines() if line.startswith(wanted)]
        if any('method="ping"' in line for line in found):
            return True
        time.sleep(1)
    return False
