"""What must hold before a fit touches anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cluster.errors import ConfigError, GraphError
from cluster.graph import TRAIN, UNLABELLED, Graph
from cluster.halo_choice import attach_halo, check_halo
from cluster.partition import Partition
from cluster.partitioners import find_partitioner, make_partition
from coordinator.aggregators import find_aggregator
from coordinator.config import Config
from shards.submodels.table import check_submodel


def home_path(home: str | Path | None, config: Config) -> Path:
    """The folder a system is to live in.

    Raises:
        ConfigError: neither the call nor the configuration names one.
    """
    chosen = home or config.storage.home
    if chosen is None:
        raise ConfigError("no home; pass home= or set storage.home")
    return Path(chosen)


def check_config(config: Config, partition: Partition | None) -> None:
    """Check what no single field can say, before anything starts.

    Raises:
        ConfigError: names what does not fit, and the choices.
    """
    check_submodel(config.shards)
    find_aggregator(config.aggregator.kind)
    find_partitioner(config.partition.method)
    if partition is None:
        return
    wanted = (config.partition.num_shards, config.partition.effective_guarantee)
    given = (partition.num_shards, partition.guarantee)
    if wanted != given:
        raise ConfigError(
            f"the given partition has (num_shards, guarantee) = {given}, the configuration says "
            f"{wanted}; make them agree"
        )


def require_labels(graph: Graph, config: Config) -> None:
    """Check that there is something to learn.

    Raises:
        GraphError: no training node has a label.
    """
    if not (graph.y[graph.roles(config.roles) == TRAIN] != UNLABELLED).any():
        raise GraphError(
            "no training node has a label, so every shard would be silent; "
            "check the label column and roles.train"
        )


def fit_partition(graph: Graph, partition: Partition, config: Config) -> Partition:
    """The given partition for this graph: exactly its training nodes, erased ones dropped.

    A partition that brings no halo gets the one that the configuration wants.

    Raises:
        ConfigError: it assigns other nodes, or is not what its guarantee claims.
    """
    partition = partition.restrict(graph)
    train = graph.ids[graph.roles(config.roles) == TRAIN]
    if len(train) != len(partition.ids) or (train != partition.ids).any():
        raise ConfigError(
            f"the given partition assigns {len(partition.ids)} nodes, the graph has {len(train)} "
            "training nodes; it was made for other roles or another graph"
        )
    if partition.guarantee == "frozen":
        if partition.halo is None:
            return attach_halo(graph, partition, config.partition, config.roles)
        check_halo(partition, config.partition)
        return partition
    derived = make_partition(graph, config.partition, config.roles, allow_empty=True)
    if partition.halo is None:
        partition = replace(partition, halo=derived.halo)
    if derived.key != partition.key:
        raise ConfigError(
            f"the given partition is not the one that guarantee {partition.guarantee!r} and "
            "the configuration derive from this graph; leave partition= out"
        )
    return partition
