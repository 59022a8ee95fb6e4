"""The Ray pool: shard actors on a Ray cluster. The only place where ``ray.remote`` is applied."""

from __future__ import annotations

import logging
import math
import os
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

from cluster.errors import CapacityError, ErasureError, UnweaveError
from coordinator.pools.base import Progress
from shards.actor import ShardActor
from shards.config import ShardsConfig
from shards.recipe import Profile, worker_environment


def _declare_environment() -> None:
    """Set what Ray reads once, while it is imported: token mode with a token of this process.

    Left alone where the user chose a mode or a cluster; where Ray is imported already, its own
    ``ray.init`` turns token mode on for a local cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    chosen = {"RAY_AUTH_MODE", "RAY_ADDRESS"} & set(os.environ)
    if not chosen and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


_declare_environment()

import ray  # noqa: E402 (the environment has to be declared before)
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError  # noqa: E402
from ray.util.metrics import Histogram  # noqa: E402

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 200 * 1024**2
START_TIMEOUT_S = 180
JOB_S = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


def connect() -> bool:
    """Join the Ray cluster that is running or named by RAY_ADDRESS, else start a local one.

    Returns:
        Whether a local cluster was started here, and so must be ended here.
    """
    if ray.is_initialized():
        return False
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
        return False
    ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return True


def disconnect() -> None:
    """End the cluster that :func:`connect` started."""
    ray.shutdown()


def actor_count(config: ShardsConfig, num_shards: int) -> int:
    """How many actors host the shards: one a core or GPU, or as ``shards.per_actor`` says."""
    if config.per_actor != "auto":
        return math.ceil(num_shards / config.per_actor)
    kind = "GPU" if config.device == "cuda" else "CPU"
    return max(1, min(num_shards, int(ray.cluster_resources().get(kind, 1))))


class RayPool:
    """Shard actors on Ray; jobs go to whichever actor is idle, results keep the job order."""

    def __init__(
        self, profile: Profile, config: ShardsConfig, num_shards: int, *, actors: int | None = None
    ) -> None:
        self._owns_cluster = connect()
        count = actors or actor_count(config, num_shards)
        resources = _resources(config, count)
        remote = ray.remote(ShardActor).options(
            runtime_env={"env_vars": worker_environment(profile)},
            max_restarts=3,
            max_task_retries=3,
            **resources,
        )
        self._seconds = Histogram(
            "unweave_shard_job_seconds",
            "What one job of a shard actor took, such as a retraining (method build).",
            boundaries=JOB_S,
            tag_keys=("method",),
        )
        self._actors = [remote.remote() for _ in range(count)]
        self._wait_until_up(resources)

    @property
    def size(self) -> int:
        """Number of actors."""
        return len(self._actors)

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`."""
        results: list[Any] = [None] * len(jobs)
        running: dict[Any, tuple[int, Any, float]] = {}
        idle, waiting, done = list(self._actors), list(range(len(jobs)))[::-1], 0
        while waiting or running:
            while idle and waiting:
                at, actor = waiting.pop(), idle.pop()
                job = getattr(actor, method).remote(jobs[at])
                running[job] = at, actor, time.monotonic()
            ready, _ = ray.wait(list(running))
            at, actor, started = running.pop(ready[0])
            results[at] = _result(ready[0], method)
            self._seconds.observe(time.monotonic() - started, tags={"method": method})
            idle.append(actor)
            done += 1
            if progress:
                progress(done, len(jobs), at)
        return results

    def tell(self, method: str, job: Any) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`."""
        asked = [getattr(actor, method).remote(job) for actor in self._actors]
        return [_result(reference, method) for reference in asked]

    def cpu_seconds(self) -> float:
        """CPU seconds that all actors have spent so far."""
        return float(sum(ray.get([actor.cpu_seconds.remote() for actor in self._actors])))

    def close(self) -> None:
        """End the actors, and the Ray cluster if it was started here."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._owns_cluster:
            ray.shutdown()

    def _wait_until_up(self, resources: dict[str, float]) -> None:
        pings = [actor.ping.remote() for actor in self._actors]
        try:
            ray.get(pings, timeout=START_TIMEOUT_S)
        except GetTimeoutError:
            pending = len(ray.wait(pings, num_returns=len(pings), timeout=0)[1])
            offered = ray.cluster_resources()
            self.close()
            raise CapacityError(
                f"{pending} of {len(pings)} shard actors did not start in {START_TIMEOUT_S} s; "
                f"each asks for {resources}, the Ray cluster offers "
                f"{ {k: v for k, v in offered.items() if k in ('CPU', 'GPU')} }; "
                "raise shards.per_actor so that fewer actors host the shards"
            ) from None


def _resources(config: ShardsConfig, count: int) -> dict[str, float]:
    """Fractions of the cluster, so that every actor is scheduled whatever their number."""
    total = ray.cluster_resources()
    if config.device == "cuda":
        if not total.get("GPU"):
            raise CapacityError(
                "shards.device is 'cuda' but the Ray cluster has no GPU; "
                "use --set shards.device=cpu"
            )
        return {"num_cpus": 0, "num_gpus": min(1.0, total["GPU"] / count)}
    return {"num_cpus": min(1.0, math.floor(100 * total.get("CPU", 1) / count) / 100)}


def _result(reference: Any, method: str) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UnweaveError):
            raise error.cause from None
        raise
    except RayActorError as error:
        raise ErasureError(
            f"a shard actor died during {method!r} and did not come back ({error}); "
            "accepted requests are kept, open the home again to resume them"
        ) from error
