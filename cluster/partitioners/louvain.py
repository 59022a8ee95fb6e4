"""Louvain communities, split to the capacity, packed into shards, and refined by restreaming."""

from __future__ import annotations

import heapq

import networkx as nx
import numpy as np
import scipy.sparse as sp
from community import best_partition
from scipy.sparse.csgraph import reverse_cuthill_mckee

from cluster.digest import derive_seed
from cluster.partitioners.base import Array, Problem
from cluster.partitioners.restream import refine

REFINE_PASSES = 4


def louvain(problem: Problem) -> Array:
    """Assign nodes by community under ``problem.capacity``.

    Reference:
        Blondel et al., J. Stat. Mech. 2008, by python-louvain; the packing is longest first (LPT).
    """
    community = find_communities(problem)
    problem.progress(1, 1 + REFINE_PASSES)
    shards = pack(_pieces(problem, community), problem.num_shards, problem.capacity)
    return refine(problem, shards, passes=REFINE_PASSES, rounds_before=1)


def find_communities(problem: Problem) -> Array:
    """Community number of every node, ``[T]`` int64."""
    sources = np.repeat(np.arange(problem.num_nodes), np.diff(problem.indptr))
    once = sources < problem.indices
    graph = nx.Graph()
    graph.add_nodes_from(range(problem.num_nodes))
    graph.add_edges_from(zip(sources[once].tolist(), problem.indices[once].tolist(), strict=True))
    random_state = derive_seed(problem.seed, "louvain") % 2**32
    found = best_partition(graph, random_state=random_state)
    return np.asarray([found[v] for v in range(problem.num_nodes)], np.int64)


def _pieces(problem: Problem, community: Array) -> list[Array]:
    """Members of each community, in equal pieces within the capacity, neighbours close by."""
    sources = np.repeat(np.arange(problem.num_nodes), np.diff(problem.indptr))
    inside = community[sources] == community[problem.indices]
    pairs = (sources[inside], problem.indices[inside])
    shape = (problem.num_nodes, problem.num_nodes)
    within = sp.csr_matrix((np.ones(len(pairs[0]), np.int8), pairs), shape=shape)
    walk = reverse_cuthill_mckee(within, symmetric_mode=True)
    members = walk[np.argsort(community[walk], kind="stable")]
    bounds = np.flatnonzero(np.diff(community[members])) + 1
    return [
        piece
        for group in np.split(members, bounds)
        for piece in np.array_split(group, -(-len(group) // problem.capacity))
    ]


def pack(pieces: list[Array], num_shards: int, capacity: int) -> Array:
    """Put pieces into shards, the largest first into the emptiest shard.

    A piece that fits nowhere fills the emptiest shard, and its rest is packed in its turn.

    Args:
        pieces: rows of each piece, together ``0..T-1`` once; T <= num_shards * capacity.
        num_shards: k.
        capacity: largest shard size.

    Returns:
        ``[T]`` int32 shard of each row.
    """
    shards = np.empty(sum(map(len, pieces)), np.int32)
    loads = [(0, shard) for shard in range(num_shards)]
    queue = [(-len(piece), i, piece) for i, piece in enumerate(pieces)]
    heapq.heapify(queue)
    while queue:
        _, number, piece = heapq.heappop(queue)
        load, shard = heapq.heappop(loads)
        fitting, rest = np.split(piece, [capacity - load])
        shards[fitting] = shard
        heapq.heappush(loads, (load + len(fitting), shard))
        if len(rest):
            heapq.heappush(queue, (-len(rest), number, rest))
    return shards
