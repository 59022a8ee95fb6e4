"""Halo: the foreign nodes that a shard reads, and which records its choice of them examined.

A shard looks at the training nodes whose message reaches one of its own nodes within ``hops``
steps, every node of the path owned by the shard itself or by one that it may read. Such a
candidate enters if the keyed hash of its id, salted with the shard's name, is under the shard's
threshold. So the choice of one node never depends on another's, and every record that can change
a choice (a candidate, a node or an edge on a path) lies between examined rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.digest import derive_seed
from cluster.graph import Graph

Array = npt.NDArray[Any]

UNASSIGNED = -1


@dataclass(frozen=True, eq=False)
class Halo:
    """What shards may read beside their own nodes; a declared input of every content.

    Attributes:
        hops: message-passing steps within which a foreign node is a candidate.
        thresholds: ``[k]`` float64 share of the hash range under which a candidate of a shard
            enters; 1 lets all in.
        arcs: ``[k, k]`` bool, ``arcs[i, j]``: shard i may read records of shard j; None for all.
        labels: whether a shard trains on all records of the shards it may read, labels included
            (SAFE); hops and thresholds then decide nothing.
        seed: seed of the keyed hash.
    """

    hops: int
    thresholds: Array
    arcs: Array | None = None
    labels: bool = False
    seed: int = 0

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Everything that decides who reads what, for a key."""
        arcs = None if self.arcs is None else self.arcs.astype(bool)
        return self.hops, self.labels, self.seed, self.thresholds.astype(np.float64), arcs


@dataclass(frozen=True, eq=False)
class Examined:
    """Which shards examined a row when they chose their halo, as CSR over rows.

    Attributes:
        indptr: ``[N + 1]`` int64.
        shards: ``[m]`` int32, ascending in a row; the owner is among them.
        read: ``[m]`` bool, whether the shard reads the row: it owns it, or let it in.
    """

    indptr: Array
    shards: Array
    read: Array


def examine(graph: Graph, owner: Array, names: Sequence[str], halo: Halo | None) -> Examined:
    """Find the rows that every shard examines, and those it reads.

    Args:
        graph: the surviving graph.
        owner: ``[N]`` int32 owner of each row, UNASSIGNED where no shard owns it.
        names: k shard names.
        halo: None if every shard reads its own rows alone.
    """
    num_shards = len(names)
    if halo is None:
        pairs = _own_pairs(owner, num_shards)
    elif halo.labels:
        pairs = _clique_pairs(owner, num_shards, halo.arcs)
    else:
        pairs = _near_pairs(graph, owner, num_shards, halo.hops, halo.arcs)
    rows, shards = pairs // num_shards, (pairs % num_shards).astype(np.int32)
    indptr = np.zeros(graph.num_nodes + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=graph.num_nodes), out=indptr[1:])
    read = owner[rows] == shards
    if halo is not None:
        foreign = np.flatnonzero(~read)
        read[foreign] = _enters(graph, rows[foreign], shards[foreign], names, halo)
    return Examined(indptr, shards, read)


def count_candidates(
    graph: Graph, owner: Array, num_shards: int, hops: int, arcs: Array | None
) -> Array:
    """``[k, k]`` int64, entry (i, j): records of shard j that are candidates of shard i."""
    pairs = _near_pairs(graph, owner, num_shards, hops, arcs)
    reader, held = pairs % num_shards, owner[pairs // num_shards].astype(np.int64)
    flat = np.bincount(reader * num_shards + held, minlength=num_shards**2)
    counts: Array = flat.reshape(num_shards, num_shards)
    np.fill_diagonal(counts, 0)
    return counts


def training_edges(graph: Graph, owner: Array) -> tuple[Array, Array, Array | None]:
    """(source, target, weight) of the message-passing edges between owned rows."""
    adjacency = graph.adjacency
    target = np.repeat(np.arange(graph.num_nodes), np.diff(adjacency.indptr))
    inside = (owner[adjacency.indices] != UNASSIGNED) & (owner[target] != UNASSIGNED)
    weight = None if adjacency.weight is None else adjacency.weight[inside]
    return adjacency.indices[inside], target[inside], weight


# ---- (row, shard) pairs as ascending int64 numbers row * k + shard


def _own_pairs(owner: Array, num_shards: int) -> Array:
    rows = np.flatnonzero(owner != UNASSIGNED)
    pairs: Array = rows * num_shards + owner[rows]
    return pairs


def _clique_pairs(owner: Array, num_shards: int, arcs: Array | None) -> Array:
    """Every row with every shard that may read its owner's."""
    rows = np.flatnonzero(owner != UNASSIGNED)
    reads = np.ones((num_shards, num_shards), bool) if arcs is None else arcs.astype(bool)
    at, shards = np.nonzero((reads | np.eye(num_shards, dtype=bool)).T[owner[rows]])
    pairs: Array = rows[at] * num_shards + shards
    return pairs


def _near_pairs(
    graph: Graph, owner: Array, num_shards: int, hops: int, arcs: Array | None
) -> Array:
    """Every row with every shard to one of whose rows a message gets within ``hops`` steps."""
    source, target, _ = training_edges(graph, owner)
    shape = (graph.num_nodes, graph.num_nodes)
    step = sp.csr_matrix((np.ones(len(source), bool), (source, target)), shape)
    reached = frontier = _own_pairs(owner, num_shards)
    for _ in range(hops):
        ends = (frontier // num_shards, frontier % num_shards)
        spread = sp.csr_matrix((np.ones(len(frontier), bool), ends), (shape[0], num_shards))
        found = (step @ spread).tocoo()
        rows, shards = found.row.astype(np.int64), found.col.astype(np.int64)
        if arcs is not None:
            allowed = arcs[shards, owner[rows]]
            rows, shards = rows[allowed], shards[allowed]
        frontier = np.setdiff1d(rows * num_shards + shards, reached)
        reached = np.union1d(reached, frontier)
    return reached


def _enters(graph: Graph, rows: Array, shards: Array, names: Sequence[str], halo: Halo) -> Array:
    """``[m]`` bool, whether each (row, shard) is under the shard's threshold."""
    salts = np.asarray([derive_seed(halo.seed, "halo", name) for name in names], np.uint64)
    share = _mixed(graph.hash("halo", halo.seed)[rows] ^ salts[shards]) / 2.0**64
    threshold = halo.thresholds[shards]
    entered: Array = (share < threshold) | (threshold >= 1)
    return entered


def _mixed(values: Array) -> Array:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014): one keyed hash serves all shards."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed
