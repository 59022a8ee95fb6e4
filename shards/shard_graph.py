"""The shard graph at record level: which shards read a record.

The index is the fast path of routing; the digests of the contents are the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Change, Graph
from cluster.partition import UNASSIGNED, Partition
from shards.config import Repair
from shards.phantoms import phantom_readers

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReaderIndex:
    """Record -> readers, for one graph and one partition.

    Attributes:
        owner: ``[N]`` int32 owner of each row, UNASSIGNED where no shard owns it.
        indptr: ``[N + 1]`` int64 CSR over rows.
        readers: shards that read a row's features (its owner, and halo readers beside it).
        has_phantoms: whether contents are repaired, so that nodes and edges are read by the shards
            that hold a phantom for them too.
    """

    owner: Array
    indptr: Array
    readers: Array
    has_phantoms: bool = False

    def of_rows(self, rows: Iterable[int]) -> set[int]:
        """Shards that read the features of any of these rows."""
        found: set[int] = set()
        for row in rows:
            found.update(self.readers[self.indptr[row] : self.indptr[row + 1]].tolist())
        return found

    def of_change(self, graph: Graph, change: Change) -> set[int]:
        """Shards that read any record of ``change``.

        A node's readers include those of its edges; an edge is read where both ends are; a label
        only by its owner.
        """
        found = self.of_rows(graph.rows(change.nodes).tolist())
        found |= self.of_rows(graph.rows([node_id for node_id, _ in change.features]).tolist())
        for at in graph.edge_positions(change.edges).tolist():
            found |= self.of_rows([int(graph.src[at])]) & self.of_rows([int(graph.dst[at])])
        if self.has_phantoms:
            found |= phantom_readers(graph, self.owner, change)
        owners = self.owner[graph.rows(change.labels)]
        return found | {int(s) for s in owners.tolist() if s != UNASSIGNED}


def build_index(graph: Graph, partition: Partition, *, repair: Repair = "none") -> ReaderIndex:
    """Index of a partition without halos: a row's features are read by its owner alone."""
    owner = partition.owners(graph)
    owned = owner != UNASSIGNED
    indptr = np.zeros(graph.num_nodes + 1, np.int64)
    np.cumsum(owned, out=indptr[1:])
    return ReaderIndex(owner, indptr, owner[owned], has_phantoms=repair != "none")
