"""Many ids at once to rows of a graph; an unknown one is -1 here, not an error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph

Array = npt.NDArray[Any]

UNKNOWN = -1
DIGEST_TYPE = "S32"  # a SHA-256; all are 32 bytes long, so NumPy's padding changes no comparison


def find_rows(graph: Graph, ids: Array) -> Array:
    """``[K]`` int64 rows of ids of the graph's own id type, -1 where the graph has no such node."""
    if graph.ids.dtype != object:
        return find_sorted(graph.ids, ids)
    listed = ids.tolist()
    known = np.fromiter(map(graph.has_node, listed), bool, len(listed))
    rows = np.full(len(listed), UNKNOWN, np.int64)
    rows[known] = graph.rows(ids[known].tolist())
    return rows


def find_sorted(ascending: Array, values: Array) -> Array:
    """``[K]`` int64 positions of values in an ascending array, -1 where it does not hold them."""
    if not len(ascending):
        return np.full(len(values), UNKNOWN, np.int64)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[at] == values, at, UNKNOWN).astype(np.int64)


def find_edges(keys: Array, graph: Graph, ends: Array) -> Array:
    """``[K]`` int64 positions of edges, -1 where there is none.

    Args:
        keys: :func:`edge_keys` of the graph.
        graph: whose edges.
        ends: ``[2, K]`` int64 rows, -1 for an unknown node.
    """
    a, b = ends if graph.schema.directed else np.sort(ends, axis=0)
    known = (ends >= 0).all(axis=0)
    return np.where(known, find_sorted(keys, a * graph.num_nodes + b), UNKNOWN)


def edge_keys(graph: Graph) -> Array:
    """``[M]`` int64, one number an edge, ascending as the edges are."""
    keys: Array = graph.src * graph.num_nodes + graph.dst
    return keys


@dataclass(frozen=True)
class HashedIds:
    """SHA-256 of ids' text, ascending, and where each of them is in the array they came from."""

    digests: Array
    positions: Array

    @classmethod
    def of(cls, ids: Iterable[Any]) -> HashedIds:
        """Hash ids; the text of an id is ``str(id)`` in UTF-8."""
        raw = b"".join(hashlib.sha256(str(item).encode()).digest() for item in ids)
        digests = np.frombuffer(raw, DIGEST_TYPE)
        order = np.argsort(digests, kind="stable")
        return cls(digests[order], order)

    def find(self, digests: Array) -> Array:
        """``[K]`` int64 positions of the ids with these digests, -1 where there is none."""
        at = find_sorted(self.digests, digests)
        if not len(self.positions):
            return at
        return np.where(at >= 0, self.positions[at], UNKNOWN)
