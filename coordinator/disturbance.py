"""What a change of the graph disturbs: the rows whose answers may differ after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Change, Graph, Located
from shards.ball import reach
from shards.jobs import GraphMove

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Disturbance:
    """How far a change reaches.

    Attributes:
        before: graph before the change, stored under ``before_key``.
        located: what went, by its place in ``before``.
        rewired: rows of ``before`` whose in-neighbours or degree change.
        renewed: rows of ``before`` whose features or label change.
        kept: ``[N]`` row of ``before`` that each row of the changed graph had, ascending.
    """

    before: Graph
    before_key: str
    located: Located
    rewired: Array
    renewed: Array
    kept: Array

    def moved(self, hops: int) -> Array:
        """``[N]`` bool over the changed graph: rows that read a touched one within ``hops``.

        Without a hop only a row's own record counts, not its edges.
        """
        touched = np.concatenate([self.rewired, self.renewed]) if hops else self.renewed
        rows: Array = reach(self.before, touched, hops, forward=True)[self.kept]
        return rows

    def as_move(self, hops: int) -> GraphMove:
        """For a worker that holds averages over walks of ``hops`` steps on the graph before.

        A step divides by the degree of the row it arrives at, so a change of degree reaches one
        step less than a change of features.
        """
        averaged = reach(self.before, self.rewired, hops - 1, forward=True)
        averaged |= reach(self.before, self.renewed, hops, forward=True)
        renewed = np.isin(self.kept, self.renewed)
        moved = averaged[self.kept]
        places = (self.kept, np.flatnonzero(renewed), np.flatnonzero(moved))
        return GraphMove(self.before_key, self.located, *places)


def disturbance(before: Graph, before_key: str, change: Change) -> Disturbance:
    """What ``change`` disturbs in ``before``."""
    located = before.locate(change)
    removed, cut = located.removed, located.cut
    beside = np.flatnonzero(reach(before, removed, 1, forward=True))
    rewired = np.unique(np.concatenate([beside, before.src[cut], before.dst[cut]]))
    renewed = np.unique(np.concatenate([located.cells[0], located.unlabelled]))
    survives = np.ones(before.num_nodes, bool)
    survives[removed] = False
    kept = np.flatnonzero(survives)
    return Disturbance(before, before_key, located, rewired, renewed, kept)
