"""Graphs whose every record is recognised in any bytes."""

from __future__ import annotations

import uuid

import numpy as np
import scipy.sparse as sp

from cluster.digest import NodeId
from cluster.graph import Graph
from cluster.readers.arrays import from_arrays
from cluster.readers.columns import Columns
from coordinator.system import System
from tests.coordinator.bytesearch import Planted, id_patterns, indices_pattern, row_patterns
from tests.coordinator.systems import training_ids

NODES, WIDTH = 48, 24
MARK = 0x5A4E5A4942415200  # eight bytes that occur nowhere by chance


def node_name(kind: str, number: int) -> NodeId:
    """An id that is recognised in any bytes."""
    if kind == "int":
        return MARK + number
    return uuid.UUID(int=(MARK << 64) + number) if kind == "uuid" else f"zanzibar-{number:04d}"


class City:
    """A graph whose every record is recognisable."""

    def __init__(self, kind: str, *, sparse: bool) -> None:
        rng = np.random.default_rng(4)
        self.ids = [node_name(kind, number) for number in range(NODES)]
        self.x = np.zeros((NODES, WIDTH), np.float32)
        self.columns = [np.sort(rng.choice(WIDTH, 6, replace=False)) for _ in range(NODES)]
        for row, columns in enumerate(self.columns):
            chosen = columns if sparse else np.arange(WIDTH)
            self.x[row, chosen] = rng.uniform(0.5, 1.5, len(chosen)).astype(np.float32)
        pairs = {tuple(sorted(rng.choice(NODES, 2, replace=False).tolist())) for _ in range(140)}
        self.edges = sorted(pairs)
        self.weights = rng.uniform(0.5, 1.5, len(self.edges)).astype(np.float32)
        self.notes = [f"mombasa-{number:04d}-diary" for number in range(NODES)]
        self.labels = (np.arange(NODES) % 3).tolist()
        self.sparse = sparse

    def graph(self) -> Graph:
        """Through the reader of arrays."""
        x = sp.csr_matrix(self.x) if self.sparse else self.x
        columns = Columns(self.weights, {"note": np.asarray(self.notes, object)})
        ends = np.asarray(self.edges, np.int64).T
        return from_arrays(ends, x, self.labels, ids=self.ids, columns=columns)

    def planted(self, node: NodeId, edge: int, features: NodeId) -> Planted:
        """What must vanish: a node, an edge of others, the features of a third node."""
        at, other = self.ids.index(node), self.ids.index(features)
        patterns = {
            "id": id_patterns(node),
            "row": row_patterns(self.x[at][self.x[at] != 0]),
            "note": (self.notes[at].encode(),),
            "edge": row_patterns([self.weights[edge]]),
            "features": row_patterns(self.x[other][self.x[other] != 0]),
        }
        if self.sparse:
            patterns["columns"] = indices_pattern(self.columns[at])
        return Planted(patterns)


def in_the_workers(system: System, planted: Planted) -> dict[str, list[str]]:
    """What a live object of any actor holds."""
    call = ("tests.coordinator.bytesearch:held_in_memory", (dict(planted.patterns),))
    found: dict[str, list[str]] = {}
    for answer in system.pool.tell("call", call):
        found |= answer
    return found


def choose(system: System, city: City) -> tuple[NodeId, int, NodeId, NodeId]:
    """A training node to erase, an edge and features of others, and a node whose request goes."""
    owner = system.partition.assignment
    node, features, cancelled = training_ids(system)[:3]
    apart = {city.ids.index(i) for i in (node, features, cancelled)}
    inside = (
        at
        for at, (u, v) in enumerate(city.edges)
        if not apart & {u, v} and owner.get(city.ids[u], -1) == owner.get(city.ids[v], -2)
    )
    return node, next(inside), features, cancelled
