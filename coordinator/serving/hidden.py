"""What a mask hides in the graph of a generation, row numbers staying what they are.

A hidden node keeps its row and loses everything else: edges, features, label. So tables of answers
are never renumbered while a generation is served, and an answer is the one that a graph without the
node gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.graph import Graph, Located
from cluster.schema import FILL_VALUE
from coordinator.disturbance import Disturbance

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Hidden:
    """Marks on the records of one graph; what goes with a node is marked as well.

    Attributes:
        removed: ``[N]`` bool, nodes.
        cut: ``[M]`` bool, edges.
        cells: ascending feature cells of other nodes, as row * F + column.
        unlabelled: ``[N]`` bool, labels.
    """

    removed: Array
    cut: Array
    cells: Array
    unlabelled: Array

    @classmethod
    def of(cls, graph: Graph, located: Located | None) -> Hidden:
        """What is hidden in ``graph``; nothing if ``located`` is None."""
        removed, cut = np.zeros(graph.num_nodes, bool), np.zeros(graph.num_edges, bool)
        if located is None:
            return cls(removed, cut, np.empty(0, np.int64), removed.copy())
        removed[located.removed] = True
        cut[located.cut] = True
        cut |= removed[graph.src] | removed[graph.dst]
        unlabelled = removed.copy()
        unlabelled[located.unlabelled] = True
        rows, columns = located.cells
        other = ~removed[rows]
        cells = np.unique(rows[other] * graph.schema.num_features + columns[other])
        return cls(removed, cut, cells, unlabelled)

    def covers(self, other: Hidden, graph: Graph) -> bool:
        """Whether everything that ``other`` hides is hidden here too."""
        shown = (other.removed & ~self.removed).any() or (other.cut & ~self.cut).any()
        shown = shown or (other.unlabelled & ~self.unlabelled).any()
        cells = np.setdiff1d(other.cells, self.cells, assume_unique=True)
        return not shown and bool(self.removed[cells // max(graph.schema.num_features, 1)].all())

    def applied(self, graph: Graph) -> Graph:
        """The graph without what is hidden, hidden nodes being bare rows."""
        if not (self.removed.any() or self.cut.any() or len(self.cells) or self.unlabelled.any()):
            return graph
        nobody = np.empty(0, np.int64)
        width = max(graph.schema.num_features, 1)
        cells = (self.cells // width, self.cells % width)
        bare = graph.without(
            Located(nobody, np.flatnonzero(self.cut), cells, np.flatnonzero(self.unlabelled))
        )
        return replace(bare, x=_emptied(bare.x, self.removed), segment_cache={})

    def since(self, before: Hidden, graph: Graph, shown: Graph) -> Disturbance:
        """What is hidden in addition to ``before``, and whom it touches.

        Args:
            before: part of what is hidden here.
            graph: the graph that is spoken of.
            shown: the same without what ``before`` hides.
        """
        cut = np.flatnonzero(self.cut & ~before.cut)
        labels = np.flatnonzero(self.unlabelled & ~before.unlabelled)
        removed = np.flatnonzero(self.removed & ~before.removed)
        cells = np.setdiff1d(self.cells, before.cells, assume_unique=True)
        width = max(graph.schema.num_features, 1)
        located = Located(removed, cut, (cells // width, cells % width), labels)
        rewired = np.unique(np.concatenate([graph.src[cut], graph.dst[cut]]))
        renewed = np.unique(np.concatenate([cells // width, labels, removed]))
        everybody = np.arange(graph.num_nodes)
        return Disturbance(shown, "", located, rewired, renewed, everybody)


def _emptied(x: Any, rows: Array) -> Any:
    """A copy of features in which some rows (bool) hold nothing."""
    if not rows.any():
        return x
    x = x.copy()
    if not sp.issparse(x):
        x[rows] = FILL_VALUE
        return x
    x.data[np.repeat(rows, np.diff(x.indptr))] = FILL_VALUE
    x.eliminate_zeros()
    return x
