"""BLPA: GraphEraser's balanced label propagation, in linear memory."""

from __future__ import annotations

import numpy as np

from cluster.partitioners.base import Array, Problem
from cluster.partitioners.compiled import Csr, compiled

MAX_ROUNDS = 100
LOOSE_ROUNDS = 10  # rounds that grant as published; measured: from 10 to 30 the cut is the same
SWAP_TRIES = 16  # partners looked at before a node between full shards gives up for this round


def label_propagation(problem: Problem) -> Array:
    """Assign nodes by balanced label propagation under ``problem.capacity``.

    Every round each node wishes the shard that holds most of its neighbours. Wishes are granted
    by falling number of neighbours; a node whose target is full waits there until one leaves.

    Reference:
        Chen et al., CCS 2022, Algorithm 1. Deviations: the capacity is the caller's; after ten
        rounds a wish is granted only while it still lowers the cut, so that neighbours do not
        trade places for ever; nodes that wait between two full shards swap, so that a capacity of
        exactly n / k does not deadlock; an isolated node wishes nothing.
    """
    csr = (problem.indptr, problem.indices)
    num_nodes, num_shards = problem.num_nodes, problem.num_shards
    shards = np.empty(num_nodes, np.int32)
    shards[np.argsort(problem.hashes)] = np.arange(num_nodes) * num_shards // num_nodes
    sizes = np.bincount(shards, minlength=num_shards)
    for done in range(1, MAX_ROUNDS + 1):
        targets, support = _wishes(csr, shards, num_shards, problem.hashes, done)
        wishing = np.flatnonzero(targets != shards)
        order = wishing[np.lexsort((problem.hashes[wishing], -support[wishing]))]
        strict = done > LOOSE_ROUNDS
        moved, waiting = _grant(csr, shards, sizes, (targets, order), (problem.capacity, strict))
        moved += _swap(csr, shards, targets, waiting[targets[waiting] != shards[waiting]])
        problem.progress(done, MAX_ROUNDS)
        if not moved:
            break
    return shards


@compiled
def _wishes(
    csr: Csr, shards: Array, num_shards: int, hashes: Array, salt: int
) -> tuple[Array, Array]:
    """Shard with most neighbours of every node, and how many; equals are broken by hash.

    A node stays where it is unless another shard holds strictly more of its neighbours.
    """
    indptr, indices = csr
    targets, support = shards.copy(), np.zeros(len(shards), np.int64)
    near = np.zeros(num_shards, np.int64)
    for v in range(len(shards)):
        neighbours = indices[indptr[v] : indptr[v + 1]]
        for u in neighbours:
            near[shards[u]] += 1
        best, most, best_draw = shards[v], near[shards[v]], np.uint64(0)
        for u in neighbours:
            s = shards[u]
            if near[s] < most or s == best or (near[s] == most and best == shards[v]):
                continue
            draw = _draw(hashes[v], s, salt)
            if near[s] > most or draw > best_draw:
                best, most, best_draw = s, near[s], draw
        targets[v], support[v] = best, most
        for u in neighbours:
            near[shards[u]] = 0
    return targets, support


@compiled
def _draw(node_hash: np.uint64, shard: int, salt: int) -> np.uint64:
    """Pseudo-random number of a (node, shard, round): splitmix64's finaliser."""
    z = np.uint64(node_hash) ^ (np.uint64(shard) << np.uint64(20)) ^ np.uint64(salt)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def _gain(csr: Csr, shards: Array, v: int, target: int) -> int:
    """Edges saved by moving ``v`` to ``target``."""
    indptr, indices = csr
    gain = 0
    for u in indices[indptr[v] : indptr[v + 1]]:
        gain += (shards[u] == target) - (shards[u] == shards[v])
    return gain


@compiled
def _grant(
    csr: Csr, shards: Array, sizes: Array, wishes: tuple[Array, Array], rule: tuple[int, bool]
) -> tuple[int, Array]:
    """Grant wishes in order, in place; returns the number of moves and all who had to wait.

    One waiting queue for each shard, as linked lists: a departure lets the next one in, whose
    departure lets another one in where it came from.

    Args:
        csr: the training graph.
        shards: ``[T]`` int32, changed.
        sizes: ``[k]`` int64, changed.
        wishes: target of every node, and the nodes that wish to move, in the order of granting.
        rule: capacity, and whether a move must still lower the cut when its turn comes.
    """
    capacity, strict = rule
    targets, order = wishes
    head, tail = np.full(len(sizes), -1), np.full(len(sizes), -1)
    behind = np.full(len(shards), -1)
    waiting = np.empty(len(order), np.int64)
    moved, num_waiting = 0, 0
    for first in order:
        v = first
        if sizes[targets[v]] >= capacity:
            waiting[num_waiting] = v
            num_waiting += 1
            if head[targets[v]] < 0:
                head[targets[v]] = v
            else:
                behind[tail[targets[v]]] = v
            tail[targets[v]] = v
            continue
        while v >= 0:
            source, target = shards[v], targets[v]
            if not strict or _gain(csr, shards, v, target) > 0:
                shards[v] = target
                sizes[target] += 1
                sizes[source] -= 1
                moved += 1
                target = source
            v = head[target] if sizes[target] < capacity else -1
            if v >= 0:
                head[target] = behind[v]
    return moved, waiting[:num_waiting]


@compiled
def _swap(csr: Csr, shards: Array, targets: Array, waiting: Array) -> int:
    """Exchange nodes that wait for each other's shard while that lowers the cut, in place."""
    num_shards = max(shards.max(), targets.max()) + 1
    here = shards[waiting].astype(np.int64)
    there = targets[waiting].astype(np.int64)
    order = np.argsort(here * num_shards + there, kind="mergesort")
    routes = (here * num_shards + there)[order]
    nodes = waiting[order]
    starts = np.searchsorted(routes, (there * num_shards + here)[order])
    moved, partner = 0, 0
    for i in range(len(nodes)):
        v, a, b = nodes[i], here[order[i]], there[order[i]]
        if i == 0 or routes[i] != routes[i - 1]:
            partner = starts[i]
        back = b * num_shards + a
        while partner < len(nodes) and routes[partner] == back and shards[nodes[partner]] != b:
            partner += 1  # gone already
        for j in range(partner, min(partner + SWAP_TRIES, len(nodes))):
            w = nodes[j]
            if shards[v] != a or routes[j] != back:
                break
            if shards[w] == b and _swap_gain(csr, shards, v, w) > 0:
                shards[v], shards[w] = b, a
                moved += 2
    return moved


@compiled
def _swap_gain(csr: Csr, shards: Array, v: int, w: int) -> int:
    """Edges saved by exchanging ``v`` and ``w``."""
    indptr, indices = csr
    gain = _gain(csr, shards, v, shards[w]) + _gain(csr, shards, w, shards[v])
    for u in indices[indptr[v] : indptr[v + 1]]:
        if u == w:
            gain -= 2  # each move alone saves their own edge, together they keep it cut
    return gain
