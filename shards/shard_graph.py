"""The shard graph at record level: which shards read a record.

The index is the fast path of routing; the digests of the contents are the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.graph import Change, Graph
from cluster.partition import UNASSIGNED, Partition

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReaderIndex:
    """Record -> readers, for one graph and one partition.

    A shard that examined a row to choose its halo is among the row's readers, whether the row
    entered or not: where the row goes, a path goes, and with it perhaps another candidate.

    Attributes:
        owner: ``[N]`` int32 owner of each row, UNASSIGNED where no shard owns it.
        indptr: ``[N + 1]`` int64 CSR over rows.
        readers: ``[m]`` int32 shards that examine a row (its owner among them), ascending.
        read: ``[m]`` bool, whether the shard reads the row's features; None for all.
        labels: whether a reader trains on the labels of foreign rows too (SAFE).
        has_phantoms: whether contents are repaired, so that nodes and edges are read by the shards
            that hold a phantom for them too.
    """

    owner: Array
    indptr: Array
    readers: Array
    read: Array | None = None
    labels: bool = False
    has_phantoms: bool = False

    def of_rows(self, rows: Iterable[int]) -> set[int]:
        """Shards that examine any of these rows."""
        found: set[int] = set()
        for row in rows:
            found.update(self.readers[self.indptr[row] : self.indptr[row + 1]].tolist())
        return found

    def reading(self, rows: Iterable[int]) -> set[int]:
        """Shards whose content holds any of these rows."""
        if self.read is None:
            return self.of_rows(rows)
        found: set[int] = set()
        for row in rows:
            span = slice(self.indptr[row], self.indptr[row + 1])
            found.update(self.readers[span][self.read[span]].tolist())
        return found

    def of_change(self, graph: Graph, change: Change) -> set[int]:
        """Shards whose content any record of ``change`` may move.

        A node concerns whoever examined it, and so do its edges; an edge whoever examined both
        ends; a feature whoever reads the row; a label its owner alone, except in SAFE's cliques.
        """
        found = self.of_rows(graph.rows(change.nodes).tolist())
        found |= self.reading(graph.rows([node_id for node_id, _ in change.features]).tolist())
        for at in graph.edge_positions(change.edges).tolist():
            found |= self.of_rows([int(graph.src[at])]) & self.of_rows([int(graph.dst[at])])
        if self.has_phantoms:
            found |= self._holding_phantoms(graph, change)
        labelled = graph.rows(change.labels)
        if self.labels:
            return found | self.reading(labelled.tolist())
        return found | {int(s) for s in self.owner[labelled].tolist() if s != UNASSIGNED}

    def _holding_phantoms(self, graph: Graph, change: Change) -> set[int]:
        """Shards that hold a phantom for a node or an edge of ``change``.

        A shard repairs the rows whose labels it trains on: its own, in SAFE's cliques all it reads.
        """
        rows = phantom_rows(graph, self.owner, change).tolist()
        return self.reading(rows) if self.labels else set(self.owner[rows].tolist())

    def rows_of(self, shard: int) -> Array:
        """``[n]`` rows that a shard reads, own and foreign, ascending."""
        order, starts = self._by_shard
        if shard >= len(starts) - 1:
            return np.empty(0, np.int64)
        rows: Array = order[starts[shard] : starts[shard + 1]]
        return rows

    @cached_property
    def _by_shard(self) -> tuple[Array, Array]:
        """Rows that are read, grouped by reader, and where each reader's begin."""
        rows = np.repeat(np.arange(len(self.owner)), np.diff(self.indptr))
        readers = self.readers
        if self.read is not None:
            rows, readers = rows[self.read], readers[self.read]
        starts = np.concatenate([[0], np.cumsum(np.bincount(readers))])
        return rows[np.argsort(readers, kind="stable")], starts

    def arcs(self, num_shards: int) -> Array:
        """``[k, k]`` int64, entry (i, j): records of shard j that shard i reads; 0 for its own."""
        counts = np.zeros((num_shards, num_shards), np.int64)
        for shard in range(num_shards):
            held = self.owner[self.rows_of(shard)]
            counts[shard] = np.bincount(held[held != shard], minlength=num_shards)
        return counts


def build_index(graph: Graph, partition: Partition, *, has_phantoms: bool = False) -> ReaderIndex:
    """Index of a partition: owners, with a halo whoever examined a row, phantoms if repaired."""
    examined = partition.examined(graph)
    return ReaderIndex(
        partition.owners(graph),
        examined.indptr,
        examined.shards,
        None if partition.halo is None else examined.read,
        labels=partition.halo is not None and partition.halo.labels,
        has_phantoms=has_phantoms,
    )


def index_of_owners(owner: Array, *, has_phantoms: bool = False) -> ReaderIndex:
    """Index without halos: a row is read by its owner alone."""
    owned = owner != UNASSIGNED
    indptr = np.concatenate([[0], np.cumsum(owned)])
    return ReaderIndex(owner, indptr, owner[owned], has_phantoms=has_phantoms)


def retrained_by_nodes(graph: Graph, index: ReaderIndex) -> ReaderIndex:
    """Index of the shards that erasing a node retrains.

    They read it, hold a phantom for it, or merely examined it while it is the only bridge to a row
    that they read two hops away. Bridges further out are left out.
    """
    if index.read is None and not index.has_phantoms:
        return index
    rows, readers = np.repeat(np.arange(len(index.owner)), np.diff(index.indptr)), index.readers
    read = np.ones(len(rows), bool) if index.read is None else index.read
    found = [(rows[read], readers[read])]
    if index.read is not None:
        found.append(_only_bridges(graph, index, rows))
    if index.has_phantoms:  # beside every row that a shard trains on
        trained = read if index.labels else index.owner[rows] == readers
        beside = (_onward(graph) @ _pairs(index, rows, trained, np.ones(len(rows)))).tocoo()
        known = index.owner[beside.row] != UNASSIGNED
        found.append((beside.row[known], beside.col[known]))
    width = int(readers.max(initial=0)) + 1
    pairs = np.unique(np.concatenate([row.astype(np.int64) * width + s for row, s in found]))
    counts = np.bincount(pairs // width, minlength=len(index.owner))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return ReaderIndex(index.owner, indptr, (pairs % width).astype(np.int32))


def _only_bridges(graph: Graph, index: ReaderIndex, rows: Array) -> tuple[Array, Array]:
    """(rows, shards): nodes that are a shard's one way to a row it reads at its second hop.

    Args:
        graph: the graph.
        index: its index, with a halo.
        rows: ``[m]`` row of every entry of the index.
    """
    assert index.read is not None
    onward, own = _onward(graph), index.owner[rows] == index.readers
    reached = onward @ _pairs(index, rows, own, np.ones(len(rows)))
    beside = _entries(reached, rows, index.readers) > 0
    first, second = ~own & beside, ~own & ~beside & index.read
    place = (rows[second], index.readers[second])
    ways = _entries(onward @ _pairs(index, rows, first, np.ones(len(rows))), *place)
    total = _entries(onward @ _pairs(index, rows, first, rows + 1.0), *place)
    only = ways == 1
    return total[only].astype(np.int64) - 1, place[1][only]


def _onward(graph: Graph) -> sp.csr_matrix:
    """Entry (u, v): a message goes from u to v."""
    return graph.adjacency.matrix().T.tocsr()


def _pairs(index: ReaderIndex, rows: Array, chosen: Array, values: Array) -> sp.csr_matrix:
    """``[N, k]`` values of the chosen entries of an index, by row and shard."""
    shape = (len(index.owner), int(index.readers.max(initial=0)) + 1)
    entries = (values[chosen], (rows[chosen], index.readers[chosen]))
    return sp.csr_matrix(entries, shape=shape)


def _entries(matrix: sp.csr_matrix, rows: Array, columns: Array) -> Array:
    """``[m]`` entries of a sparse matrix."""
    if not len(rows):
        return np.empty(0)
    return np.asarray(matrix[rows, columns]).ravel()


def phantom_rows(graph: Graph, owner: Array, change: Change) -> Array:
    """Rows that have a phantom neighbour for a node or an edge of ``change``.

    Args:
        graph: the graph before the change.
        owner: ``[N]`` owner of each row, UNASSIGNED where no shard owns it.
        change: the records.
    """
    named = np.zeros(graph.num_nodes, bool)
    named[graph.rows(change.nodes)] = True
    touched = named[graph.src] | named[graph.dst]
    touched[graph.edge_positions(change.edges)] = True
    source, target = graph.src[touched], graph.dst[touched]
    owns, owned = owner[source], owner[target]
    cut = (owns != owned) & (owns != UNASSIGNED) & (owned != UNASSIGNED)
    rows = [target[cut]] if graph.schema.directed else [target[cut], source[cut]]
    return np.unique(np.concatenate(rows))
