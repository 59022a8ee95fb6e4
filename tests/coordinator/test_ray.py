"""The product's default pool on a real Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.graph import Graph
from cluster.readers.sbm import BlockModel, block_model
from coordinator.config import Config, load_config
from coordinator.erasure import Erasure
from coordinator.pools.inline import InlinePool
from coordinator.system import System
from shards.recipe import choose_profile

pytestmark = pytest.mark.ray

CONFIG: dict[str, Any] = {
    "partition": {"num_shards": 5},
    "shards": {"hidden": 8, "training_epochs": 5},
    "aggregator": {"kind": "optimal"},
}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return block_model(BlockModel(num_nodes=150, num_classes=3, num_features=12, seed=3))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray cluster for the whole module, started by the product itself."""
    from coordinator.pools.ray import connect

    started = connect()
    yield
    if started:
        import ray

        ray.shutdown()


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(CONFIG)


def _history(graph: Graph, config: Config, home: Path, pool: Any) -> dict[str, Any]:
    """Fit, erase twice; everything that must not depend on where it ran."""
    with System.fit(graph, config, home, pool=pool) as system:
        train = system.partition.ids.tolist()
        system.erase(Erasure(nodes=[train[0]], labels=[train[5]]))
        system.erase(Erasure(features={train[9]: None}))
        proba = system.predict(system.graph.ids[:20].tolist()).proba.tobytes()
        return {
            "shards": dict(system.generation.shards),
            "aggregator": system.generation.aggregator_key,
            "proba": proba,
        }


@pytest.mark.parametrize(
    "actors",
    [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 5))],
)
def test_any_number_of_ray_actors_gives_the_bits_of_the_inline_pool(
    cluster: None, graph: Graph, config: Config, tmp_path: Path, actors: int
) -> None:
    from coordinator.pools.ray import RayPool

    profile = choose_profile(config.shards)
    inline = InlinePool(profile, config.shards, 5)
    expected = _history(graph, config, tmp_path / "inline", inline)
    inline.close()

    pool = RayPool(profile, config.shards, 5, actors=actors)
    found = _history(graph, config, tmp_path / "ray", pool)
    pool.close()

    assert found == expected


def test_an_error_in_an_actor_arrives_as_the_error_it_was(
    cluster: None, graph: Graph, config: Config, tmp_path: Path
) -> None:
    from cluster.errors import CorruptArtefactError

    System.fit(graph, config, tmp_path / "home", pool="ray").close()
    system = System.open(tmp_path / "home", pool="ray")
    for path in (tmp_path / "home" / "objects" / "submodel").iterdir():
        path.write_bytes(b"not a checkpoint")

    with pytest.raises(CorruptArtefactError, match="verify"):
        system.predict([int(graph.ids[0])])
    assert system.verify(repair=True).ok
    assert len(system.predict([int(graph.ids[0])]).labels) == 1
    system.close()


def test_a_killed_actor_comes_back_and_the_erasure_completes(
    cluster: None, graph: Graph, config: Config, tmp_path: Path
) -> None:
    from coordinator.pools.ray import RayPool

    pool = RayPool(choose_profile(config.shards), config.shards, 5, actors=1)
    system = System.fit(graph, config, tmp_path / "home", pool=pool)
    (pid,) = pool.map("call", [("os:getpid", ())])
    assert pid != os.getpid()
    os.kill(pid, 9)

    receipt = system.erase(Erasure(nodes=[system.partition.ids.tolist()[0]]))

    assert len(receipt.shards_retrained) == 1
    assert system.verify("all").ok
    system.close()
    pool.close()


def test_ray_is_started_with_token_authentication(cluster: None) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
