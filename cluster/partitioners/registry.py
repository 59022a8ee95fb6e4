"""The table of partitioners, and the one function that makes a Partition with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cluster.config import PartitionConfig, RolesConfig
from cluster.errors import CapacityError, ConfigError, GraphError
from cluster.graph import TRAIN, Graph
from cluster.halo_choice import attach_halo, default_coarse
from cluster.partition import Partition, capacity, from_assignment
from cluster.partitioners.balanced_kmeans import balanced_kmeans
from cluster.partitioners.base import Array, Partitioner, Progress, make_problem
from cluster.partitioners.bilevel import bilevel
from cluster.partitioners.fair_spectral import fair_spectral
from cluster.partitioners.hashing import hash_partition
from cluster.partitioners.label_propagation import label_propagation
from cluster.partitioners.louvain import louvain
from cluster.partitioners.metis import metis
from cluster.partitioners.restream import restream

PARTITIONERS: Mapping[str, Partitioner] = {
    "hash": hash_partition,
    "blpa": label_propagation,
    "bekm": balanced_kmeans,
    "fair_spectral": fair_spectral,
    "bilevel": bilevel,
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
    """Partition the training nodes of ``graph``, with the halo that the configuration wants.

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
    partitioner = find_partitioner(config.method)
    num_train = check_room(graph, config, roles, allow_empty=allow_empty)
    if num_train < config.num_shards and config.method != "hash":
        shards = np.arange(num_train)
    else:
        shards = partitioner(make_problem(graph, config, roles, progress or _silent))
    if len(shards) and (shards.min() < 0 or shards.max() >= config.num_shards):
        raise GraphError(f"partitioner {config.method!r} gave a shard outside 0..k-1")
    info = {"method": config.method, "seed": config.seed}
    partition = from_assignment(graph, shards, config, roles, info)
    coarse = _coarse(np.asarray(shards), partition, config)
    return attach_halo(graph, partition, config, roles, coarse)


def _coarse(made: Array, partition: Partition, config: PartitionConfig) -> Array:
    """``[k]`` coarse shard of each shard, -1 for an empty one that was renumbered.

    A partitioner's number says it; under ``rederived`` shards are numbered anew.
    """
    coarse = default_coarse(config)
    if partition.guarantee != "rederived":
        return coarse
    renumbered = np.full(config.num_shards, -1)
    renumbered[partition.shards] = coarse[made]
    return renumbered


def check_room(
    graph: Graph, config: PartitionConfig, roles: RolesConfig, *, allow_empty: bool = False
) -> int:
    """Number of training nodes, if the shards can hold them.

    Raises:
        CapacityError: more shards than training nodes, or too little capacity for them.
    """
    num_train = int(np.count_nonzero(graph.roles(roles) == TRAIN))
    if num_train < config.num_shards and not allow_empty:
        raise CapacityError(
            f"partition.num_shards is {config.num_shards} but the graph has {num_train} training "
            "nodes; use fewer shards or a larger roles.train"
        )
    room = capacity(graph, config, roles)
    if room * config.num_shards < num_train and config.method != "hash":
        raise CapacityError(
            f"partition.capacity {room} x {config.num_shards} shards cannot hold "
            f"{num_train} training nodes; raise capacity or num_shards"
        )
    return num_train


def _silent(done: int, total: int) -> None:
    return None
