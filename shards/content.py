"""ShardContent: exactly the rows that a shard's training reads, in canonical order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.digest import Digest, digest, keyed_hash
from cluster.graph import UNLABELLED, Adjacency, Graph
from cluster.partition import UNASSIGNED
from cluster.schema import Schema
from cluster.segments import pack_column, pack_features, unpack_column, unpack_features
from cluster.store import Blob
from shards.config import Repair
from shards.shard_graph import ReaderIndex, index_of_owners

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ShardContent:
    """What one training reads; local rows are in canonical order of the external ids.

    Attributes:
        schema: schema of the graph (only its training part enters the digest).
        ids: ``[n]`` external ids.
        owned: ``[n]`` bool, rows whose labels are trained on; False for halo rows (features and
            edges, never labels), except in SAFE's cliques.
        x: ``[n, F]`` float32 dense or CSR.
        y: ``[n]`` int32 class index, -1 where unlabelled or halo.
        indptr: ``[n + 1]`` int64 in-neighbours of each local row, sorted by (dst, src).
        indices: ``[m]`` int64 local source rows.
        weight: ``[m]`` float32 or None.
        lost: ``[n]`` int64 training in-neighbours of each row that other shards own; None unless
            the content is to be repaired (:mod:`shards.phantoms`).
    """

    schema: Schema
    ids: Array
    owned: Array
    x: Any
    y: Array
    indptr: Array
    indices: Array
    weight: Array | None
    lost: Array | None = None

    @property
    def num_nodes(self) -> int:
        """n, owned and halo rows."""
        return len(self.ids)

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to learn from: no owned row with a label."""
        return not bool((self.owned & (self.y != UNLABELLED)).any())

    @cached_property
    def digest(self) -> Digest:
        """Digest over everything that training reads."""
        tensors = self._tensors()
        return digest("content", self.schema.training_digest, self.schema.id_type, tensors)

    @cached_property
    def _slice_hashes(self) -> Array:
        return keyed_hash("slice", 0, self.ids.tolist()) >> np.uint64(32)

    def slice_numbers(self, num_slices: int) -> Array:
        """``[n]`` slice of every row, 1 to ``num_slices``, by a hash of its id alone.

        Halo rows are in slice 1: they bring no label, and every slice may lean on them.
        """
        numbers = (self._slice_hashes * np.uint64(num_slices)) >> np.uint64(32)
        return np.where(self.owned, numbers.astype(np.int64) + 1, 1)

    def prefix(self, upto: int, num_slices: int) -> ShardContent:
        """The content restricted to slices 1 to ``upto``, with the edges among their rows."""
        if upto == num_slices:
            return self
        rows = np.flatnonzero(self.slice_numbers(num_slices) <= upto)
        edges = Adjacency(self.indptr, self.indices, self.weight)
        indptr, indices, weight = restrict_edges(edges, rows)
        return replace(
            self,
            ids=self.ids[rows],
            owned=self.owned[rows],
            x=self.x[rows],
            y=self.y[rows],
            indptr=indptr,
            indices=indices,
            weight=weight,
            lost=None if self.lost is None else self.lost[rows],
        )

    def _tensors(self) -> dict[str, Array]:
        tensors = pack_column("id", self.ids, self.schema.id_type) | pack_features(self.x)
        tensors |= {"owned": self.owned, "y": self.y}
        tensors |= {"indptr": self.indptr, "indices": self.indices}
        if self.weight is not None:
            tensors["weight"] = self.weight
        if self.lost is not None:
            tensors["lost"] = self.lost
        return tensors

    def to_blob(self) -> Blob:
        """As an artefact; its key is ``digest``."""
        return Blob(self._tensors(), {"schema": self.schema.to_json()})

    @classmethod
    def from_blob(cls, blob: Blob) -> ShardContent:
        """Inverse of :meth:`to_blob`."""
        schema, tensors = Schema.from_json(blob.meta["schema"]), blob.tensors
        return cls(
            schema,
            unpack_column("id", tensors, schema.id_type),
            tensors["owned"],
            unpack_features([tensors], schema),
            tensors["y"],
            tensors["indptr"],
            tensors["indices"],
            tensors.get("weight"),
            tensors.get("lost"),
        )


def build_content(
    graph: Graph, readers: ReaderIndex | Array, shard: int, *, repair: Repair = "none"
) -> ShardContent:
    """Cut one shard's content out of the graph: the rows it reads and the edges among them.

    Args:
        graph: the surviving graph.
        readers: index of this graph; or, without halos, the ``[N]`` owner of each row, negative
            where no shard owns it.
        shard: the shard's number.
        repair: with owners, whether to count the neighbours that the cut took away; an index
            knows it.
    """
    index = readers
    if not isinstance(index, ReaderIndex):
        index = index_of_owners(np.asarray(index), has_phantoms=repair != "none")
    rows = index.rows_of(shard)
    owned = np.ones(len(rows), bool) if index.labels else index.owner[rows] == shard
    indptr, indices, weight = induced_edges(graph, rows)
    return ShardContent(
        schema=graph.schema,
        ids=graph.ids[rows],
        owned=owned,
        x=graph.x[rows],
        y=np.where(owned, graph.y[rows], UNLABELLED).astype(graph.y.dtype),
        indptr=indptr,
        indices=indices,
        weight=weight,
        lost=_count_lost(graph, index.owner, rows, owned) if index.has_phantoms else None,
    )


def _count_lost(graph: Graph, owner: Array, rows: Array, owned: Array) -> Array:
    """``[n]`` int64 training in-neighbours of each owned row that are not among ``rows``."""
    elsewhere = owner != UNASSIGNED
    elsewhere[rows] = False
    positions, target = incoming(graph.adjacency, rows)
    lost = elsewhere[graph.adjacency.indices[positions]] & owned[target]
    return np.bincount(target[lost], minlength=len(rows))


def induced_edges(graph: Graph, rows: Array) -> tuple[Array, Array, Array | None]:
    """In-neighbour CSR of the subgraph induced by ``rows`` (ascending), in local row numbers."""
    return restrict_edges(graph.adjacency, rows)


def restrict_edges(adjacency: Adjacency, rows: Array) -> tuple[Array, Array, Array | None]:
    """Edges among ``rows`` (ascending) of an in-neighbour CSR, in local row numbers."""
    positions, target = incoming(adjacency, rows)
    sources = adjacency.indices[positions]
    local = np.searchsorted(rows, sources)
    local[local == len(rows)] = 0
    inside = rows[local] == sources if len(rows) else np.zeros(0, bool)
    target = target[inside]
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(target, minlength=len(rows)), out=indptr[1:])
    weight = None if adjacency.weight is None else adjacency.weight[positions[inside]]
    return indptr, local[inside], weight


def incoming(adjacency: Adjacency, rows: Array) -> tuple[Array, Array]:
    """Positions in the adjacency of the edges into ``rows``, and the local row of each target."""
    starts, stops = adjacency.indptr[rows], adjacency.indptr[rows + 1]
    counts = stops - starts
    offsets = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return np.arange(int(counts.sum())) + offsets, np.repeat(np.arange(len(rows)), counts)
