"""Scores of a fitted ridge head on every row of a graph, kept while the graph changes.

Serving needs neither the statistics nor the features of the head: it keeps the rows' own features
and the scores, and takes again those of the rows that a change moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph
from shards.ridge import RidgeHead, RidgeSpec, features, own_features, scores_of

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RidgeTable:
    """What a ridge head says of the rows of one graph.

    Attributes:
        spec: what decides its features.
        head: the head.
        near: ``[N, w]`` float32 own features.
        scores: ``[N, C]`` float32.
    """

    spec: RidgeSpec
    head: RidgeHead
    near: Array
    scores: Array

    @classmethod
    def of(cls, graph: Graph, spec: RidgeSpec, head: RidgeHead) -> RidgeTable:
        """From nothing."""
        rows = np.arange(graph.num_nodes)
        near = own_features(graph, rows, spec)
        return cls(spec, head, near, _scores(graph, near, rows, head))

    def after(self, graph: Graph, renewed: Array, moved: Array) -> RidgeTable:
        """The table of a changed graph with the same row numbers.

        Args:
            graph: the changed graph.
            renewed: rows whose own features may differ.
            moved: rows whose averages over a walk may differ.
        """
        near, found = self.near, self.scores.copy()
        if len(renewed):
            near = near.copy()
            near[renewed] = own_features(graph, renewed, self.spec)
        if len(moved):
            found[moved] = _scores(graph, near, moved, self.head)
        return RidgeTable(self.spec, self.head, near, found)


def _scores(graph: Graph, near: Array, rows: Array, head: RidgeHead) -> Array:
    z = features(graph, near, np.arange(len(near)), rows)
    return scores_of(lambda part: z[part], len(rows), head)
