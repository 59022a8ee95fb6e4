"""The part of a graph that the answers on a few rows depend on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph
from shards.content import induced_edges

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Ball:
    """Some rows and everything within ``hops`` message-passing steps of them.

    Attributes:
        graph: the graph the rows are taken from.
        rows: ``[b]`` ascending rows of the graph inside the ball.
        targets: ``[t]`` positions of the rows that were asked for among ``rows``.
    """

    graph: Graph
    rows: Array
    targets: Array

    @cached_property
    def edges(self) -> tuple[Array, Array, Array | None]:
        """In-neighbour CSR inside the ball."""
        adjacency = self.graph.adjacency
        if len(self.rows) == self.graph.num_nodes:
            return adjacency.indptr, adjacency.indices, adjacency.weight
        return induced_edges(self.graph, self.rows)

    @cached_property
    def degree(self) -> Array:
        """``[b]`` in-degree in the whole graph, so that the frontier is normalised rightly."""
        degree: Array = self.graph.adjacency.degree[self.rows]
        return degree


def ball(graph: Graph, rows: Array, hops: int) -> Ball:
    """The ball around ``rows`` (ascending rows of ``graph``)."""
    inside = np.flatnonzero(reach(graph, rows, hops))
    return Ball(graph, inside, np.searchsorted(inside, rows))


def whole(graph: Graph) -> Ball:
    """All rows: the ball that every other one agrees with."""
    rows = np.arange(graph.num_nodes)
    return Ball(graph, rows, rows)


def reach(graph: Graph, rows: Array, hops: int, *, forward: bool = False) -> Array:
    """``[N]`` bool: rows within ``hops`` steps.

    Args:
        graph: the graph.
        rows: where to start; included.
        hops: message-passing steps.
        forward: False for the rows that the start reads, True for the rows that read the start.
    """
    inside = np.zeros(graph.num_nodes, bool)
    inside[rows] = True
    if not hops:
        return inside
    matrix = graph.adjacency.matrix()
    if forward and graph.schema.directed:  # an undirected graph is its own transpose
        matrix = matrix.T.tocsr()
    frontier = np.asarray(rows)
    for _ in range(hops):
        found = np.unique(matrix[frontier].indices)
        frontier = found[~inside[found]]
        inside[frontier] = True
    return inside
