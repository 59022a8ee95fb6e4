"""Small graphs that tests share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from cluster.graph import Graph
from cluster.halo import Halo
from cluster.halo_choice import clique_arcs
from cluster.partition import UNASSIGNED, Partition
from cluster.readers.columns import Columns
from cluster.schema import Layout

TRIANGLE_EDGES = ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (2, 3))


def two_triangles(*, sparse: bool = False, **options: Any) -> Graph:
    """Triangles 0-1-2 (class 0) and 3-4-5 (class 1), joined by the edge 2-3; node 5 unlabelled."""
    x = np.asarray([[1, 0, 2], [0, 1, 0], [3, 0, 1], [0, 2, 2], [1, 1, 0], [0, 0, 4]], np.float32)
    return Graph.from_arrays(
        np.asarray(TRIANGLE_EDGES).T,
        sp.csr_matrix(x) if sparse else x,
        [0, 0, 0, 1, 1, -1],
        **options,
    )


def path_graph(num_nodes: int, **options: Any) -> Graph:
    """The path 0-1-2-..., features 1, 2, 3, ..., classes 0 and 1 in turn."""
    ends = np.arange(num_nodes)
    x = np.arange(1, num_nodes + 1, dtype=np.float32)[:, None]
    return Graph.from_arrays(np.stack([ends[:-1], ends[1:]]), x, ends % 2, **options)


def random_graph(
    seed: int,
    num_nodes: int = 30,
    *,
    degree: int = 3,
    layout: Layout = "dense",
    directed: bool = False,
    weighted: bool = False,
) -> Graph:
    """A seeded graph of 3 classes and 6 features, some cells zero, some nodes unlabelled."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, num_nodes)
    x = (rng.integers(0, 5, (num_nodes, 6)) * rng.integers(0, 2, (num_nodes, 6))).astype(np.float32)
    x[np.arange(num_nodes), y] += 2
    ends = rng.integers(0, num_nodes, (num_nodes * degree, 2))
    ends = ends if directed else np.sort(ends, axis=1)
    pairs = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0).reshape(-1, 2)
    weight = rng.uniform(0.5, 2, len(pairs)) if weighted else None
    return Graph.from_arrays(
        pairs.T,
        sp.csr_matrix(x) if layout == "sparse" else x,
        np.where(rng.random(num_nodes) < 0.8, y, -1),
        ids=(10 + 3 * np.arange(num_nodes)).tolist(),
        directed=directed,
        columns=Columns(weight=weight),
    )


def random_halo(seed: int, num_shards: int) -> Halo | None:
    """A seeded halo: none, of 1 to 3 hops with any thresholds and arcs, or cliques with labels."""
    rng = np.random.default_rng(seed)
    arcs = None if rng.random() < 0.5 else rng.random((num_shards, num_shards)) < 0.6
    kind = rng.integers(5)
    if kind == 0:
        return None
    if kind == 1:
        return Halo(0, np.ones(num_shards), clique_arcs(np.arange(num_shards) // 2), labels=True)
    thresholds = rng.choice([0.0, 0.4, 0.7, 1.0], num_shards)
    return Halo(int(rng.integers(1, 4)), thresholds, arcs, seed=seed)


def assign(graph: Graph, shards: Mapping[int, int], num_shards: int) -> Partition:
    """The partition that gives these ids these shards, and no shard to the others."""
    rows = sorted(shards)
    return Partition(
        np.asarray(rows),
        np.asarray([shards[i] for i in rows], np.int32),
        num_shards,
        "frozen",
        graph.schema.id_type,
        tuple(map(str, range(num_shards))),
    )


def round_robin(graph: Graph, num_shards: int, *, left_out: int = 5) -> Partition:
    """Nodes dealt to shards in turn; every ``left_out``-th belongs to none."""
    turns = enumerate(graph.ids.tolist())
    shards = {i: n % num_shards for n, i in turns if n % left_out != left_out - 1}
    assert UNASSIGNED not in shards.values()
    return assign(graph, shards, num_shards)
