"""What the whole graph tells the aggregators ``learned`` and ``merge``, held where they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph
from coordinator.aggregators.base import View
from shards.aggregation import as_probabilities
from shards.learned import FitRows, answer_learned, assemble, experts_beside, nodes_of
from shards.ridge_table import RidgeTable
from shards.stacking import held_labels

Array = npt.NDArray[Any]


@dataclass(eq=False)
class GraphTables:
    """Tables of one view; what reads labels is made when it is first asked for.

    Attributes:
        graph: the view's graph.
        owner: ``[N]`` owner of each row.
        shards: the shards that have a submodel.
        labels: ``[N]`` training labels.
        ridge: scores of the ridge head.
    """

    graph: Graph
    owner: Array
    shards: tuple[int, ...]
    labels: Array
    ridge: RidgeTable

    @cached_property
    def experts(self) -> dict[str, Array]:
        """``[N, C]`` answers of the experts that ask no submodel."""
        rows = np.arange(self.graph.num_nodes)
        return experts_beside(self.graph, self.labels, self.ridge.scores, rows)

    @cached_property
    def nodes(self) -> Array:
        """``[N, 3]`` features of the nodes that the stack's weights depend on."""
        return nodes_of(self.graph, self.labels, np.arange(self.graph.num_nodes))

    @cached_property
    def held(self) -> Array:
        """``[s, C]`` training labels of each class that each shard owns."""
        num_classes = self.graph.schema.num_classes
        return held_labels(self.owner, self.labels, self.shards, num_classes)

    def answer(self, posteriors: Array, view: View, tensors: Mapping[str, Array]) -> Array:
        """See :class:`coordinator.aggregators.base.GraphTables`."""
        rows = np.arange(self.graph.num_nodes) if view.rows is None else view.rows
        if "stack" not in tensors:
            return as_probabilities(self.ridge.scores[rows])
        held = self.held[[self.shards.index(shard) for shard in view.shards]]
        experts = {name: table[rows] for name, table in self.experts.items()}
        fit = FitRows(rows, view.shards, posteriors, view.owner)
        evidence = assemble(self.graph, fit, held, self.nodes[rows], experts)
        return answer_learned(evidence, tensors["gate"], tensors["stack"])
