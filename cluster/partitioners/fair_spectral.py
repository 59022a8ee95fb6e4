"""GUIDE-Fast: spectral shards that are balanced and look like the whole, label by label."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import scipy.sparse as sp

from cluster.graph import UNLABELLED
from cluster.partition import UNASSIGNED
from cluster.partitioners.balanced_kmeans import MAX_ROUNDS, balanced_kmeans
from cluster.partitioners.base import Array, Problem, Progress
from cluster.partitioners.compiled import compiled
from cluster.partitioners.dense import hashed_uniform, polar_factor

POWER_ROUNDS = 10
FAIRNESS = 5.0  # alpha times the largest class; the published alpha of 0.01 gives 5 on Cora


def fair_spectral(problem: Problem) -> Array:
    """Assign nodes to shards with few cut edges and the whole graph's share of every label.

    Nodes with neighbours are clustered by their rows of :func:`fair_embedding`; nodes without are
    dealt afterwards, to the shards that are short of their label.

    Reference:
        Wang, Huai, Wang, USENIX Security 2023 (GUIDE-Fast). Deviations: k-means is bounded by
        ``problem.capacity`` (deferred acceptance) and starts from keyed hashes, once; matrices are
        sparse or ``[T, k]``; see :func:`fair_embedding` for alpha and eta.
    """
    connected = np.flatnonzero(np.diff(problem.indptr))
    shards = np.full(problem.num_nodes, UNASSIGNED, np.int32)
    if len(connected):
        part = _connected_part(problem, connected)
        embedding = fair_embedding(part)
        clustering = replace(part, progress=partial(_report_late, problem.progress))
        shards[connected] = balanced_kmeans(clustering, embedding)
    isolated = np.flatnonzero(shards == UNASSIGNED)
    _deal(shards, isolated[np.argsort(problem.hashes[isolated])], problem)
    return shards


def _report_late(progress: Progress, done: int, total: int) -> None:
    progress(POWER_ROUNDS + done, POWER_ROUNDS + total)


def _connected_part(problem: Problem, connected: Array) -> Problem:
    """The problem without the nodes that have no neighbour."""
    position = np.cumsum(np.diff(problem.indptr) > 0) - 1
    return replace(
        problem,
        indptr=np.concatenate([problem.indptr[:1], problem.indptr[connected + 1]]),
        indices=position[problem.indices],
        rows=problem.rows[connected],
        hashes=problem.hashes[connected],
    )


def fair_embedding(problem: Problem) -> Array:
    """``[T, k]`` float64 with orthonormal columns: smooth over edges, fair over labels.

    Generalised power iteration on ``max tr(H'WH) - alpha ||F'H - B||^2``, W the normalised
    adjacency, F one-hot labels (zero where unlabelled), ``B_cj = (n_c / T) sqrt(T / k)``; memory
    is that of the edges and of H.

    Reference:
        GUIDE, as :func:`fair_spectral`. Deviations: alpha is FAIRNESS over the size of the largest
        class, so that fairness weighs the same in a graph of any size, and eta is 1 + FAIRNESS,
        which makes every step an ascent; ten rounds, as published.
    """
    k, num_nodes = problem.num_shards, problem.num_nodes
    scale = 1 / np.sqrt(np.diff(problem.indptr))
    sources = np.repeat(np.arange(num_nodes), np.diff(problem.indptr))
    entries = scale[sources] * scale[problem.indices]
    smooth = sp.csr_matrix((entries, problem.indices, problem.indptr), (num_nodes, num_nodes))
    labels = _one_hot(problem.graph.y[problem.rows], problem.graph.schema.num_classes)
    by_class = labels.T.tocsr()
    members = by_class @ np.ones(num_nodes)
    target = np.repeat((members / num_nodes * np.sqrt(num_nodes / k))[:, None], k, axis=1)
    weight = FAIRNESS if np.count_nonzero(members) > 1 else 0.0  # one label is always fair
    alpha = weight / max(members.max(initial=0), 1)
    embedding = polar_factor(hashed_uniform(problem.hashes, k))
    for done in range(1, POWER_ROUNDS + 1):
        unfair = labels @ (by_class @ embedding - target)
        embedding = polar_factor((1 + weight) * embedding + smooth @ embedding - alpha * unfair)
        problem.progress(done, POWER_ROUNDS + MAX_ROUNDS)
    return embedding


def _one_hot(y: Array, num_classes: int) -> sp.csr_matrix:
    """``[T, C]`` float64, a row of zeros where there is no label."""
    labelled = np.flatnonzero(y != UNLABELLED)
    ones = np.ones(len(labelled))
    return sp.csr_matrix((ones, (labelled, y[labelled])), shape=(len(y), num_classes))


def _deal(shards: Array, nodes: Array, problem: Problem) -> None:
    """Place ``nodes`` in the order given, each in an under-full shard short of its label."""
    unlabelled = problem.graph.schema.num_classes  # a class of its own here
    y = problem.graph.y[problem.rows]
    label = np.where(y == UNLABELLED, unlabelled, y).astype(np.int64)
    held = np.zeros((problem.num_shards, unlabelled + 1), np.int64)
    placed = shards != UNASSIGNED
    np.add.at(held, (shards[placed], label[placed]), 1)
    most = -(-problem.num_nodes // problem.num_shards)
    _deal_in_order(shards, nodes, label, problem.hashes, held, most)


@compiled
def _deal_in_order(
    shards: Array, nodes: Array, label: Array, hashes: Array, held: Array, most: int
) -> None:
    """The shard with room that holds fewest of the label; then the emptiest; then by hash.

    Every shard wants the same number of a label, so it is shortest of it where it holds fewest.
    """
    num_shards = len(held)
    sizes = held.sum(axis=1)
    for v in nodes:
        first = int(hashes[v] % np.uint64(num_shards))
        chosen = -1
        for step in range(num_shards):
            c = (first + step) % num_shards
            if sizes[c] >= most:
                continue
            fewer = chosen < 0 or held[c, label[v]] < held[chosen, label[v]]
            if fewer or (held[c, label[v]] == held[chosen, label[v]] and sizes[c] < sizes[chosen]):
                chosen = c
        shards[v] = chosen
        held[chosen, label[v]] += 1
        sizes[chosen] += 1
