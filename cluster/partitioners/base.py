"""What a partitioner is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.config import PartitionConfig, RolesConfig
from cluster.graph import TRAIN, Graph
from cluster.partition import capacity

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """The induced, undirected, unweighted graph of the training nodes, in canonical order.

    Attributes:
        indptr: ``[T + 1]`` int64 CSR of the neighbours of each training node.
        indices: ``[2E]`` int64 neighbours (positions among the training nodes), sorted in a row.
        graph: the whole graph, for partitioners that read features.
        rows: ``[T]`` int64 rows of the training nodes in ``graph``.
        hashes: ``[T]`` uint64 keyed hash of each node's id (order-free tie breaking).
        num_shards: k.
        capacity: largest shard size in nodes; k * capacity >= T.
        seed: seed of the partition.
        progress: called with (done, total) rounds.
        fine: fine shards in a coarse one, for partitioners with two levels; it divides k.
    """

    indptr: Array
    indices: Array
    graph: Graph
    rows: Array
    hashes: Array
    num_shards: int
    capacity: int
    seed: int
    progress: Progress
    fine: int = 1

    @property
    def num_nodes(self) -> int:
        """T, the number of training nodes."""
        return len(self.rows)


Partitioner = Callable[[Problem], Array]  # -> [T] int32 shard of each training node


def make_problem(
    graph: Graph, config: PartitionConfig, roles: RolesConfig, progress: Progress
) -> Problem:
    """Take the induced training graph out of ``graph``."""
    role = graph.roles(roles)
    rows = np.flatnonzero(role == TRAIN)
    position = np.full(graph.num_nodes, -1, np.int64)
    position[rows] = np.arange(len(rows))
    src, dst = position[graph.src], position[graph.dst]
    inside = (src >= 0) & (dst >= 0)
    src, dst = src[inside], dst[inside]
    pairs = np.unique(np.stack([np.concatenate([src, dst]), np.concatenate([dst, src])]), axis=1)
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(pairs[0], minlength=len(rows)), out=indptr[1:])
    return Problem(
        indptr,
        pairs[1],
        graph,
        rows,
        graph.hash("shard", config.seed)[rows],
        config.num_shards,
        capacity(graph, config, roles),
        config.seed,
        progress,
        config.fine,
    )
