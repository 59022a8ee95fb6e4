"""Which shard would own the records today, had they not been erased."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId
from cluster.errors import ConfigError, shorten
from cluster.graph import TRAIN, Graph
from cluster.partition import UNASSIGNED, Partition
from cluster.partitioners import make_partition

if TYPE_CHECKING:
    from coordinator.system import System

Array = npt.NDArray[Any]


def place(system: System, graph: Graph, known: Mapping[NodeId, int]) -> Partition:
    """The home's partition, with the shard of every record that it forgot.

    Under ``oblivious`` it is computed, exactly. Otherwise it is what ``known`` says, else the shard
    that owns most of the node's neighbours, the lowest of several: a guess, which decides what a
    positive control is trained on and which shard is asked, and never what a reference is.

    Args:
        system: the audited system.
        graph: the graph with the records.
        known: id -> shard, as a receipt or an earlier partition says.

    Raises:
        ConfigError: a node has no neighbour in any shard and ``known`` does not name it.
    """
    config, partition = system.config, system.partition
    if partition.guarantee == "oblivious":
        return make_partition(graph, config.partition, config.roles, allow_empty=True)
    owner = partition.restrict(graph).owners(graph)
    train = graph.roles(config.roles) == TRAIN
    _place_known(graph, owner, train, partition.num_shards, known)
    open_rows = np.flatnonzero(train & (owner == UNASSIGNED))
    while len(open_rows):
        chosen = _of_neighbours(graph, owner, open_rows, partition.num_shards)
        if (chosen == UNASSIGNED).all():
            ids = graph.ids[open_rows].tolist()
            raise ConfigError(
                f"no shard owns a neighbour of {shorten(ids)}, so their shard cannot be guessed; "
                "name the shard that held them (--shard K, or placement={id: shard})"
            )
        owner[open_rows] = chosen
        open_rows = open_rows[chosen == UNASSIGNED]
    owned = np.flatnonzero(owner != UNASSIGNED)
    return replace(partition, ids=graph.ids[owned], shards=owner[owned])


def _place_known(
    graph: Graph, owner: Array, train: Array, num_shards: int, known: Mapping[NodeId, int]
) -> None:
    for node_id, shard in known.items():
        if not 0 <= shard < num_shards:
            raise ConfigError(f"placement of {node_id!r}: no shard {shard}, there are {num_shards}")
        (row,) = graph.rows([node_id])
        if train[row] and owner[row] == UNASSIGNED:
            owner[row] = shard


def _of_neighbours(graph: Graph, owner: Array, rows: Array, num_shards: int) -> Array:
    """``[r]`` shard that owns most in-neighbours of each row, UNASSIGNED where none does."""
    held = np.zeros((graph.num_nodes, num_shards))
    placed = np.flatnonzero(owner != UNASSIGNED)
    held[placed, owner[placed]] = 1
    votes = np.asarray(graph.adjacency.matrix()[rows] @ held)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), UNASSIGNED).astype(owner.dtype)
