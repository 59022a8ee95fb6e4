"""What a change of the graph disturbs: the rows whose answers may differ after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Change, Graph
from shards.ball import reach
from shards.jobs import GraphMove

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Disturbance:
    """How far a change reaches.

    Attributes:
        before: graph before the change, stored under ``before_key``.
        start: rows of ``before`` that the change touches: those it names, the ends of its edges,
            and those whose degree it lowers.
        kept: ``[N]`` row of ``before`` that each row of the changed graph had, ascending.
    """

    before: Graph
    before_key: str
    start: Array
    kept: Array

    def moved(self, hops: int) -> Array:
        """``[N]`` bool over the changed graph: rows that read a touched one within ``hops``."""
        rows: Array = reach(self.before, self.start, hops, forward=True)[self.kept]
        return rows

    def as_move(self, hops: int) -> GraphMove:
        """For a worker that holds what it computed on the graph before."""
        return GraphMove(self.before_key, self.kept, self.moved(hops))


def disturbance(before: Graph, before_key: str, change: Change) -> Disturbance:
    """What ``change`` disturbs in ``before``."""
    removed = before.rows(change.nodes)
    cut = before.edge_positions(change.edges)
    named = [
        np.flatnonzero(reach(before, removed, 1, forward=True)) if len(removed) else removed,
        before.src[cut],
        before.dst[cut],
        before.rows([node_id for node_id, _ in change.features]),
        before.rows(change.labels),
    ]
    survives = np.ones(before.num_nodes, bool)
    survives[removed] = False
    start = np.unique(np.concatenate(named).astype(np.int64))
    return Disturbance(before, before_key, start, np.flatnonzero(survives))
