"""A small graph of people's records, with types; shared by the tests of selectors."""

from __future__ import annotations

import numpy as np

from cluster.graph import Graph
from cluster.readers.columns import Columns
from coordinator.selectors.rules import SubjectRules, load_rules
from coordinator.selectors.subjects import SubjectMap

NODES = {
    "acc-ada": "account", "acc-bob": "account", "card-1": "card", "dev-1": "device",
    "dev-2": "device", "dev-3": "device", "shop": "merchant", "note": "note",
}  # fmt: skip
EDGES = {
    ("acc-ada", "card-1"): "owns",
    ("acc-ada", "dev-1"): "logs_in_on",
    ("acc-ada", "dev-2"): "logs_in_on",
    ("acc-ada", "shop"): "pays",
    ("acc-bob", "dev-2"): "logs_in_on",
    ("acc-bob", "dev-3"): "logs_in_on",
    ("acc-bob", "shop"): "pays",
    ("note", "dev-2"): "tags",
    ("note", "acc-ada"): "tags",
}
RULES = {
    "node_types": {
        "account": "owned", "card": "owned", "device": "shared", "merchant": "never",
        "note": "never",
    },
    "edge_types": {
        "owns": "deep", "logs_in_on": "refcount", "pays": "shallow", "tags": "shallow",
    },
}  # fmt: skip
ROWS = [
    ("ada", "acc-ada", "owner"),
    ("ada", "dev-2", "owner"),
    ("ada", "note", "mention"),
    ("bob", "acc-bob", "owner"),
]


def typed_graph(
    nodes: dict[str, str], edges: dict[tuple[str, str], str], *, directed: bool = True
) -> Graph:
    row = {name: at for at, name in enumerate(nodes)}
    pairs = np.asarray([(row[u], row[v]) for u, v in edges], np.int64).reshape(-1, 2)
    return Graph.from_arrays(
        pairs.T,
        np.ones((len(nodes), 1), np.float32),
        [0, 1] * (len(nodes) // 2) + [-1] * (len(nodes) % 2),
        ids=list(nodes),
        directed=directed,
        columns=Columns(
            node={"type": np.asarray(list(nodes.values()), object)},
            edge={"type": np.asarray(list(edges.values()), object)},
        ),
    )


def people() -> Graph:
    return typed_graph(NODES, EDGES)


def rules(**changes: object) -> SubjectRules:
    return load_rules({**RULES, **changes})


def subject_map(graph: Graph | None = None) -> SubjectMap:
    return SubjectMap.from_rows(ROWS, graph or people())  # type: ignore[arg-type]
