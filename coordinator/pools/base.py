"""What a pool offers, and the table of pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from cluster.errors import ConfigError
from shards.config import ShardsConfig
from shards.recipe import Profile

Progress = Callable[[int, int, int], None]  # jobs done, all jobs, place of the one just done


class Pool(Protocol):
    """Runs ShardActor methods under one numerics profile; shared by any number of systems."""

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        """Run ``ShardActor.method(job)`` for every job; results in job order.

        Raises:
            UnweaveError: what the method raised, as it was raised.
        """

    def tell(self, method: str, job: Any) -> list[Any]:
        """Run ``ShardActor.method(job)`` on every actor that is up, and wait for all answers."""

    @property
    def size(self) -> int:
        """Number of actors."""

    def cpu_seconds(self) -> float:
        """CPU seconds that all actors have spent so far."""

    def close(self) -> None:
        """End what this pool started; nothing else."""


POOLS = {"inline": "coordinator.pools.inline:InlinePool", "ray": "coordinator.pools.ray:RayPool"}


def open_pool(name: str, profile: Profile, config: ShardsConfig, num_shards: int) -> Pool:
    """Start a pool by name.

    Raises:
        ConfigError: no pool has that name.
    """
    if name not in POOLS:
        raise ConfigError(f"pool is {name!r}; choose one of {sorted(POOLS)} or pass a Pool")
    module, _, attribute = POOLS[name].partition(":")
    make: Callable[..., Pool] = getattr(import_module(module), attribute)
    return make(profile, config, num_shards)
