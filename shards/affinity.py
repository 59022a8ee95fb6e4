"""Affinity: which shards a node's two-hop training neighbours live in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.graph import Graph
from shards.content import incoming

Array = npt.NDArray[Any]


def affinity(graph: Graph, owner: Array, shards: Sequence[int], rows: Array | None = None) -> Array:
    """``[n, s]`` float64: chance that a walk from a row ends in a shard; rows add up to 1.

    The walk has two steps, each stays or goes to a neighbour, all alike; it counts when it ends in
    a training node of one of ``shards``. Dividing by degree at each step keeps hubs from deciding
    for everybody, as plain path counts would. Where no walk counts, all shards are alike.

    Args:
        graph: the current graph.
        owner: ``[N]`` owner of each row, negative where no shard owns it.
        shards: the s shards that are asked.
        rows: the n rows wanted; all of them when left out.
    """
    column = np.full(max(int(owner.max(initial=-1)), *shards, 0) + 2, -1)
    column[list(shards)] = np.arange(len(shards))
    at = np.flatnonzero(column[owner] >= 0)  # an owner of -1 reads the last entry, which is -1
    size = graph.num_nodes
    ends = sp.csr_matrix((np.ones(len(at)), (at, column[owner[at]])), shape=(size, len(shards)))
    first = _step(graph, np.arange(size) if rows is None else rows)
    middle = np.unique(first.indices)
    chance = np.asarray((first[:, middle] @ (_step(graph, middle) @ ends)).todense())
    total = np.add.accumulate(chance, axis=1)[:, -1:]
    alike = 1 / max(len(shards), 1)
    return np.asarray(np.where(total > 0, chance / np.where(total > 0, total, 1), alike))


def _step(graph: Graph, rows: Array) -> sp.csr_matrix:
    """``[n, N]`` chances of going from some rows to each row in one step of the walk."""
    at, place = incoming(graph.adjacency, rows)
    column = np.concatenate([graph.adjacency.indices[at], rows])
    row = np.concatenate([place, np.arange(len(rows))])
    step = sp.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(rows), graph.num_nodes))
    step.sort_indices()  # sums run in canonical order
    counts = np.diff(step.indptr)
    step.data = np.repeat(1 / counts, counts)
    return step
