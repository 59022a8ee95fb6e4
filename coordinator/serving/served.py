"""What is masked in a generation that replicas may still answer with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from cluster.graph import Graph, Located
from coordinator.engine import Engine
from coordinator.erasure import Erasure, present_part
from coordinator.requests.serving import Held


@dataclass(eq=False)
class Served:
    """A generation that replicas may still answer with.

    Attributes:
        graph: its graph.
        gone: what left with later generations.
        located: where everything that is masked now lies in it.
        since: when it was superseded; None for the published one.
        kept: shards that were stale when it was superseded; here they stay so.
        stale: all its stale shards, each with the policy that holds.
    """

    graph: Graph
    gone: list[Erasure] = field(default_factory=list)
    located: Located | None = None
    since: float | None = None
    kept: Held = field(default_factory=dict)
    stale: Held = field(default_factory=dict)

    def end(self, masked: Iterable[Erasure], now: float) -> None:
        """Another generation was published: what was masked by then never comes back here."""
        self.gone += masked
        self.kept = self.stale
        self.since = now if self.since is None else self.since


def locate(graph: Graph, erasures: list[Erasure]) -> Located:
    """Where the records of some erasures lie in a graph, as far as it has them."""
    change, _ = present_part(graph, Erasure.merge(erasures))
    return graph.locate(change)


def both(one: Located, other: Located) -> Located:
    """Both; a record may be named twice."""
    return Located(
        np.union1d(one.removed, other.removed),
        np.union1d(one.cut, other.cut),
        (
            np.concatenate([one.cells[0], other.cells[0]]),
            np.concatenate([one.cells[1], other.cells[1]]),
        ),
        np.union1d(one.unlabelled, other.unlabelled),
    )


def stale_shards(engine: Engine, erasures: list[Erasure]) -> set[int]:
    """Shards whose submodel has read some records of the published graph."""
    graph = engine.live.graph
    change, _ = present_part(graph, Erasure.merge(erasures))
    return set() if change.is_empty else engine.index().of_change(graph, change)
