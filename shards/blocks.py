"""Posterior blocks: a submodel's answers on a few fit rows, computed on just the rows they reach.

A block's bits are a function of the submodel and of its ball (the fit rows of one bucket, all rows
within the receptive field, the edges among them, and their degrees in the whole graph). A change
outside the ball leaves the block, and its key, as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.digest import Digest, digest
from cluster.graph import Graph
from cluster.segments import pack_column, pack_features
from shards.content import induced_edges

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Ball:
    """Fit rows and everything within ``hops`` message-passing steps of them.

    Attributes:
        graph: the graph the rows are taken from.
        rows: ``[b]`` ascending rows of the graph inside the ball.
        targets: ``[t]`` positions of the fit rows among ``rows``.
    """

    graph: Graph
    rows: Array
    targets: Array

    @cached_property
    def edges(self) -> tuple[Array, Array, Array | None]:
        """In-neighbour CSR inside the ball."""
        return induced_edges(self.graph, self.rows)

    @cached_property
    def degree(self) -> Array:
        """``[b]`` in-degree in the whole graph, so that the frontier is normalised rightly."""
        degree: Array = self.graph.adjacency.degree[self.rows]
        return degree

    @cached_property
    def digest(self) -> Digest:
        """Digest of every graph row the block reads."""
        indptr, indices, weight = self.edges
        tensors = pack_column("id", self.graph.ids[self.rows], self.graph.schema.id_type)
        tensors |= pack_features(self.graph.x[self.rows])
        arrays = [self.targets, indptr, indices, self.degree]
        training_schema = self.graph.schema.training_digest
        return digest("ball", training_schema, tensors, arrays, weight)


def ball(graph: Graph, fit_rows: Array, hops: int) -> Ball:
    """The ball around ``fit_rows`` (ascending rows of ``graph``)."""
    inside = reach(graph, fit_rows, hops)
    rows = np.flatnonzero(inside)
    return Ball(graph, rows, np.searchsorted(rows, fit_rows))


def reach(graph: Graph, rows: Array, hops: int, *, forward: bool = False) -> Array:
    """``[N]`` bool: rows within ``hops`` steps.

    Args:
        graph: the graph.
        rows: where to start; included.
        hops: message-passing steps.
        forward: False for the rows that the start reads, True for the rows that read the start.
    """
    matrix = graph.adjacency.matrix()
    if forward:
        matrix = matrix.T.tocsr()
    inside = np.zeros(graph.num_nodes, bool)
    inside[rows] = True
    frontier = np.asarray(rows)
    for _ in range(hops):
        found = np.unique(matrix[frontier].indices)
        frontier = found[~inside[found]]
        inside[frontier] = True
    return inside


def block_key(submodel_key: str, ball_digest: str) -> Digest:
    """Key of one posterior block; the submodel's key covers the recipe."""
    return digest("posterior-block", submodel_key, ball_digest)
