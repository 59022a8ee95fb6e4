"""Set, before torch is imported, what a worker that trains needs in its environment."""

from __future__ import annotations

import os

from shards.config import ShardsConfig
from shards.recipe import choose_profile, worker_environment

os.environ.update(worker_environment(choose_profile(ShardsConfig())))
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
