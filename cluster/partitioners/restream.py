"""Restreaming LDG: stream the nodes several times, each to the shard that holds its neighbours.

Reference:
    Stanton and Kliot, KDD 2012 (LDG); Nishimura and Ugander, KDD 2013 (restreaming). Two additions:
    isolated nodes are streamed last, since they fit anywhere, and the best pass is the one kept.
"""

from __future__ import annotations

import numpy as np

from cluster.partition import UNASSIGNED
from cluster.partitioners.base import Array, Problem
from cluster.partitioners.compiled import Csr, compiled

PASSES = 8


def restream(problem: Problem) -> Array:
    """Assign nodes by restreaming passes alone, from nothing."""
    unassigned = np.full(problem.num_nodes, UNASSIGNED, np.int32)
    return refine(problem, unassigned, passes=PASSES)


def refine(problem: Problem, shards: Array, *, passes: int, rounds_before: int = 0) -> Array:
    """Improve an assignment by restreaming passes under ``problem.capacity``.

    Args:
        problem: the training graph.
        shards: ``[T]`` int32 assignment within the capacity, or all UNASSIGNED.
        passes: how often every node is streamed.
        rounds_before: rounds the caller has reported already, for the progress total.

    Returns:
        ``[T]`` int32, the assignment with the smallest cut among ``shards`` and all passes.
    """
    csr = (problem.indptr, problem.indices)
    isolated = np.diff(problem.indptr) == 0
    order = np.lexsort((problem.hashes, isolated))
    current = shards.astype(np.int32)
    best, best_cut = current.copy(), _cut(csr, current)
    for done in range(1, passes + 1):
        _stream(csr, order, current, np.zeros(problem.num_shards, np.int64), problem.capacity)
        cut = _cut(csr, current)
        if cut < best_cut:
            best, best_cut = current.copy(), cut
        problem.progress(rounds_before + done, rounds_before + passes)
    return best


@compiled
def _stream(csr: Csr, order: Array, shards: Array, sizes: Array, capacity: int) -> None:
    """Place every node anew, in place.

    Sizes start at zero in each pass and count this pass only, so a full partition is no obstacle;
    neighbours that are not placed yet count where the pass before put them. The score is
    ``neighbours * (capacity - size)``, LDG's in integers.
    """
    indptr, indices = csr
    num_shards = len(sizes)
    near = np.zeros(num_shards, np.int64)
    for v in order:
        neighbours = indices[indptr[v] : indptr[v + 1]]
        for u in neighbours:
            if shards[u] >= 0:
                near[shards[u]] += 1
        chosen, top = -1, 0
        for u in neighbours:
            s = shards[u]
            if s < 0:
                continue
            score = near[s] * (capacity - sizes[s])
            if score > top or (score == top and chosen >= 0 and s < chosen):
                chosen, top = s, score
        if chosen < 0:
            chosen = int(np.argmin(sizes))
        for u in neighbours:
            if shards[u] >= 0:
                near[shards[u]] = 0
        shards[v] = chosen
        sizes[chosen] += 1


@compiled
def _cut(csr: Csr, shards: Array) -> int:
    """Count edges (each twice) between shards; an unassigned end makes an edge cut."""
    indptr, indices = csr
    cut = 0
    for v in range(len(shards)):
        for u in indices[indptr[v] : indptr[v + 1]]:
            cut += shards[v] != shards[u] or shards[v] < 0
    # Without edges an unassigned start would tie with every pass; it must never be kept.
    for v in range(len(shards)):
        cut += shards[v] < 0
    return cut
