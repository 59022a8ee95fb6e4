"""Bilevel: coarse shards by keyed hash, each cut into fine shards that share its classes."""

from __future__ import annotations

import numpy as np

from cluster.partitioners.base import Array, Problem


def bilevel(problem: Problem) -> Array:
    """Assign nodes to coarse shards by hash, then to fine ones by a class-balanced draw.

    The fine shards of coarse shard c are numbers ``c * fine`` to ``c * fine + fine - 1`` (under the
    guarantee ``rederived`` shards are renumbered by their members, which keeps the sets alone).

    Reference:
        Dukler et al. (SAFE), ICCV 2023, bilevel sharding. Deviations: the coarse draw is a keyed
        hash of the id under a capacity; the class-balanced draw deals each class in turn, in hash
        order, unlabelled nodes last, so that fine shards differ by at most one node in each class
        and in size.
    """
    num_coarse = problem.num_shards // problem.fine
    coarse = _coarse(problem.hashes, num_coarse, problem.fine * problem.capacity)
    labels = problem.graph.y[problem.rows]
    shards = np.empty(problem.num_nodes, np.int32)
    for c in range(num_coarse):
        members = np.flatnonzero(coarse == c)
        shards[members] = c * problem.fine + _deal(
            labels[members], problem.hashes[members], problem.fine
        )
        problem.progress(c + 1, num_coarse)
    return shards


def _coarse(hashes: Array, num_coarse: int, capacity: int) -> Array:
    """``[T]`` coarse shard of every node: the share of its hash, or where there is room.

    In a shard with too many, those with the smallest hashes stay; the others go, in hash order, to
    the shard that is emptiest then.
    """
    coarse = ((hashes >> np.uint64(32)) * np.uint64(num_coarse) >> np.uint64(32)).astype(np.int64)
    order = np.argsort(hashes, kind="stable")
    first = np.searchsorted(coarse[order], coarse[order])  # rising hash, so rising shard
    over = order[np.arange(len(order)) - first >= capacity]
    sizes = np.minimum(np.bincount(coarse, minlength=num_coarse), capacity)
    for v in over:
        coarse[v] = np.argmin(sizes)
        sizes[coarse[v]] += 1
    return coarse


def _deal(labels: Array, hashes: Array, fine: int) -> Array:
    """``[n]`` fine shard of each node, dealt in turn: class by class, in hash order within one."""
    unlabelled_last = np.where(labels < 0, labels.max(initial=0) + 1, labels)
    dealt = np.empty(len(labels), np.int32)
    dealt[np.lexsort((hashes, unlabelled_last))] = np.arange(len(labels)) % fine
    return dealt
