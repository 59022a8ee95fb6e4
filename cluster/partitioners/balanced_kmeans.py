"""BEKM: GraphEraser's balanced embedding k-means, by capacity-limited deferred acceptance."""

from __future__ import annotations

import heapq

import numpy as np
import scipy.sparse as sp

from cluster.digest import derive_seed
from cluster.errors import GraphError
from cluster.partitioners.base import Array, Problem
from cluster.partitioners.compiled import compiled

MAX_ROUNDS = 20
DIMENSIONS = 64
HOPS = 2
BLOCK_ROWS = 1 << 15  # dense feature rows turned into CSR at a time


def balanced_kmeans(problem: Problem, embedding: Array | None = None) -> Array:
    """Assign nodes to the nearest of k means, each of which takes at most ``problem.capacity``.

    Args:
        problem: the training graph.
        embedding: ``[T, d]`` float, row i belongs to ``problem.rows[i]``; by default
            :func:`propagated_projection`.

    Raises:
        GraphError: the embedding has another number of rows, or a value that is not finite.

    Reference:
        Chen et al., CCS 2022, Algorithm 2. Deviations: the embedding is no model trained on all
        nodes, and shards are granted by deferred acceptance (the same assignment, no sort of n*k
        pairs).
    """
    if embedding is None:
        embedding = propagated_projection(problem)
    points = np.ascontiguousarray(embedding, np.float64)
    if points.ndim != 2 or len(points) != problem.num_nodes or not np.isfinite(points).all():
        raise GraphError(
            f"the embedding has shape {points.shape} or values that are not finite; "
            f"give one finite row for each of the {problem.num_nodes} training nodes"
        )
    by_hash = np.argsort(problem.hashes)
    rank = np.empty_like(by_hash)
    rank[by_hash] = np.arange(len(by_hash))
    centroids = points[by_hash[: problem.num_shards]]
    for done in range(1, MAX_ROUNDS + 1):
        shards = assign_nearest(points, centroids, rank, problem.capacity)
        moved = _means(points, shards, centroids)
        problem.progress(done, MAX_ROUNDS)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return shards


def propagated_projection(problem: Problem) -> Array:
    """Features of the training nodes, row-normalised, projected and averaged over two hops.

    Sparse products only: they run in one thread, so the bits do not depend on how many there are.

    Returns:
        ``[T, 64]`` float64 rows of length 1, or 0 where a node and its two hops have no features.
    """
    x = problem.graph.x[problem.rows]
    rng = np.random.default_rng(derive_seed(problem.seed, "bekm", "projection"))
    signs = rng.integers(0, 2, (x.shape[1], DIMENSIONS)) * 2.0 - 1.0
    blocks = [
        _row_shares(sp.csr_matrix(x[start : start + BLOCK_ROWS], dtype=np.float64)) @ signs
        for start in range(0, problem.num_nodes, BLOCK_ROWS)
    ]
    embedding: Array = np.concatenate(blocks)
    shape = (problem.num_nodes, problem.num_nodes)
    ones = np.ones(len(problem.indices))
    pattern = sp.csr_matrix((ones, problem.indices, problem.indptr), shape=shape)
    hop = _row_shares((pattern + sp.identity(problem.num_nodes, format="csr")).tocsr())
    for _ in range(HOPS):
        embedding = hop @ embedding
    return _unit_rows(embedding)


def _row_shares(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Divide every row by the sum of its magnitudes; a row of zeros stays."""
    sums = abs(matrix) @ np.ones(matrix.shape[1])
    return sp.diags_array(1.0 / np.where(sums > 0, sums, 1.0), format="csr") @ matrix


@compiled
def _unit_rows(embedding: Array) -> Array:
    units = np.zeros_like(embedding)
    for v in range(len(embedding)):
        squares = 0.0
        for value in embedding[v]:
            squares += value * value
        if squares > 0:
            units[v] = embedding[v] / np.sqrt(squares)
    return units


@compiled
def assign_nearest(points: Array, centroids: Array, rank: Array, capacity: int) -> Array:
    """Grant (node, shard) pairs by rising distance while the shard has room.

    Every free node proposes to the next shard by (distance, shard); a full shard keeps the best by
    (distance, rank) and sends the worst on. Both sides rank pairs by the same order, so this is
    the greedy grant over all pairs sorted by (distance, rank, shard). Memory is O(n + k).

    Args:
        points: ``[T, d]`` float64.
        centroids: ``[k, d]`` float64.
        rank: ``[T]`` int64, distinct, decides between equal distances.
        capacity: nodes a shard takes; k * capacity >= T.

    Returns:
        ``[T]`` int32 shard of each node.
    """
    num_nodes, num_shards = len(points), len(centroids)
    columns = np.ascontiguousarray(centroids.T)
    shards = np.full(num_nodes, -1, np.int32)
    reached = np.full(num_nodes, -1.0)  # distance of the last proposal
    heaps = [[(0.0, 0, 0) for _ in range(0)] for _ in range(num_shards)]
    squared = np.empty(num_shards)
    for first in range(num_nodes):
        v = first
        while v >= 0:
            _squared_distances(points[v], columns, squared)
            shard = _next_choice(squared, reached[v], shards[v])
            shards[v], reached[v] = shard, squared[shard]
            offer = (-squared[shard], -rank[v], v)
            if len(heaps[shard]) < capacity:
                heapq.heappush(heaps[shard], offer)
                v = -1
            elif offer > heaps[shard][0]:
                v = heapq.heapreplace(heaps[shard], offer)[2]
    return shards


@compiled
def _squared_distances(point: Array, columns: Array, squared: Array) -> None:
    squared[:] = 0.0
    for i in range(len(point)):  # this order vectorises over shards without reordering a sum
        for c in range(len(squared)):
            difference = point[i] - columns[i, c]
            squared[c] += difference * difference


@compiled
def _next_choice(squared: Array, reached: float, refused: int) -> int:
    """Nearest shard after the one that refused, by (distance, shard)."""
    chosen = -1
    for c in range(len(squared)):
        later = squared[c] > reached or (squared[c] == reached and c > refused)
        if later and (chosen < 0 or squared[c] < squared[chosen]):
            chosen = c
    return chosen


@compiled
def _means(points: Array, shards: Array, centroids: Array) -> Array:
    """Mean of every shard's points; an empty shard keeps its centroid."""
    sums = np.zeros_like(centroids)
    sizes = np.zeros(len(centroids), np.int64)
    for v in range(len(points)):
        sums[shards[v]] += points[v]
        sizes[shards[v]] += 1
    for c in range(len(centroids)):
        sums[c] = sums[c] / sizes[c] if sizes[c] else centroids[c]
    return sums
