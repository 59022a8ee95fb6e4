"""The table of partitioners, and the one function that makes a Partition with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from cluster.config import PartitionConfig, RolesConfig
from cluster.errors import CapacityError, ConfigError, GraphError
from cluster.graph import TRAIN, Graph
from cluster.partition import Partition, from_assignment, quality
from cluster.partitioners.balanced_kmeans import balanced_kmeans
from cluster.partitioners.base import Partitioner, Progress, make_problem
from cluster.partitioners.hashing import hash_partition
from cluster.partitioners.label_propagation import label_propagation
from cluster.partitioners.louvain import louvain
from cluster.partitioners.metis import metis
from cluster.partitioners.restream import restream

PARTITIONERS: Mapping[str, Partitioner] = {
    "hash": hash_partition,
    "blpa": label_propagation,
    "bekm": balanced_kmeans,
    "louvain": louvain,
    "metis": metis,
    "restream": restream,
}


def find_partitioner(name: str) -> Partitioner:
    """Look a partitioner up by name.

    Raises:
        ConfigError: no partitioner has that name.
    """
    try:
        return PARTITIONERS[name]
    except KeyError:
        raise ConfigError(
            f"partition.method is {name!r}; choose one of {sorted(PARTITIONERS)}"
        ) from None


def make_partition(
    graph: Graph,
    config: PartitionConfig,
    roles: RolesConfig,
    progress: Progress | None = None,
    *,
    allow_empty: bool = False,
) -> Partition:
    """Partition the training nodes of ``graph``.

    Args:
        graph: the graph.
        config: how it is cut.
        roles: who is a training node.
        progress: called with (done, total) rounds.
        allow_empty: whether fewer training nodes than shards get a shard each, and the other
            shards are empty; so it is after erasures.

    Raises:
        CapacityError: more shards than training nodes, or too little capacity for them.
        ConfigError: unknown method.
    """
    find_partitioner(config.method)
    num_train = int(np.count_nonzero(graph.roles(roles) == TRAIN))
    too_few = num_train < config.num_shards
    if too_few and not allow_empty:
        raise CapacityError(
            f"partition.num_shards is {config.num_shards} but the graph has {num_train} training "
            "nodes; use fewer shards or a larger roles.train"
        )
    problem = make_problem(graph, config, roles, progress or _silent)
    if problem.capacity * config.num_shards < num_train:
        raise CapacityError(
            f"partition.capacity {problem.capacity} x {config.num_shards} shards cannot hold "
            f"{num_train} training nodes; raise capacity or num_shards"
        )
    partitioner = find_partitioner(config.method)
    shards = np.arange(num_train) if too_few else partitioner(problem)
    if len(shards) and (shards.min() < 0 or shards.max() >= config.num_shards):
        raise GraphError(f"partitioner {config.method!r} gave a shard outside 0..k-1")
    info = {"method": config.method, "seed": config.seed}
    partition = from_assignment(graph, shards, config, roles, info)
    measured = {**info, **asdict(quality(graph, partition))}
    return Partition(
        partition.ids,
        partition.shards,
        partition.num_shards,
        partition.guarantee,
        partition.id_type,
        partition.names,
        measured,
    )


def _silent(done: int, total: int) -> None:
    return None
