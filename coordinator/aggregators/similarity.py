"""GUIDE's weights: a shard counts for more, the more its graph resembles the whole.

The weight of a shard is the softmax, over shards, of a pyramid match kernel between the graph of
the shard's own nodes and the whole current graph. It reads no label and no posterior.

Reference:
    Wang, Huai, Wang, USENIX Security 2023; the kernel is Nikolentzos et al., AAAI 2017, section 3.
    Deviations: histograms hold shares of the nodes, not counts, since a shard's counts lie inside
    those of a graph many times its size almost everywhere and the kernel would tell the sizes
    alone; coordinates are scaled to a maximum of 1; eigenvectors come from a fixed number of
    subspace iterations that start from keyed hashes of the ids; the direction of edges is left out,
    and so are phantoms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from cluster.digest import digest
from cluster.partitioners.dense import gram, hashed_uniform, polar_factor, symmetric_eigen, times
from cluster.store import Blob
from coordinator.aggregators.base import (
    AGGREGATOR,
    Aggregator,
    AggregatorState,
    Array,
    FitContext,
    View,
    reweighted,
    weighted_alike,
)
from coordinator.config import Config
from shards.content import induced_edges

DIMENSIONS = 6
LEVELS = 4  # level l cuts every dimension into 2^l bins
OVERSAMPLED = 12  # columns of the iteration; the leading DIMENSIONS of them converge faster
ROUNDS = 30
RELATIVE_ZERO = 1e-6  # an eigenvalue below this share of the largest counts as none

Histogram = tuple[Array, ...]  # per level [DIMENSIONS, 2^level] int64, every row adds up to n


class Similarity(Aggregator):
    """One weight a shard, by pyramid match with the current graph."""

    kind = "similarity"
    needs_fit = True

    def fit(self, context: FitContext) -> AggregatorState:
        """Compute every shard's kernel; a shard's reads that shard and the current graph alone."""
        shards = sorted(context.submodels)
        identity = (context.graph_key, context.partition.key, context.recipe.key, shards)
        key = digest("aggregator", context.config.aggregator.model_dump(), identity)
        weights = np.asarray(_shard_weights(context, shards), np.float64)
        context.write({(AGGREGATOR, str(key)): Blob({"weights": weights})})
        return AggregatorState(key, {"weights": weights}, {}, ((AGGREGATOR, str(key)),))

    def leave_out(self, state: AggregatorState, kept: Array) -> AggregatorState:
        """The other shards share the weight."""
        return reweighted(state, kept)

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """The same weights for every node."""
        return weighted_alike(posteriors, state.tensors["weights"])


def _shard_weights(context: FitContext, shards: Sequence[int]) -> list[float]:
    """Histograms under the workers' numerics; from there on integers, then one softmax."""
    owner = context.partition.owners(context.graph)
    parts = [np.arange(context.graph.num_nodes)]
    parts += [np.flatnonzero(owner == shard) for shard in shards]
    hashes = context.graph.hash("similarity")
    jobs = []
    for rows in parts:
        indptr, indices, _ = induced_edges(context.graph, rows)
        arguments = (indptr, indices, hashes[rows])
        jobs.append(("coordinator.aggregators.similarity:histogram", arguments))
    whole, *own = context.pool.map("call", jobs)
    return softmax([pyramid_match(one, whole) for one in own])


def histogram(indptr: Array, indices: Array, hashes: Array) -> Histogram:
    """Where a graph's nodes lie in the unit cube of their leading eigenvectors, level by level.

    Args:
        indptr: ``[n + 1]`` in-neighbours of each node.
        indices: ``[m]`` their rows.
        hashes: ``[n]`` uint64 keyed hash of each node's id, the start of the iteration.
    """
    size = len(hashes)
    matrix = sp.csr_matrix((np.ones(len(indices)), indices, indptr), shape=(size, size))
    points = spectral_coordinates(matrix.maximum(matrix.T).tocsr(), hashes)
    levels = []
    for level in range(LEVELS):
        bins = 1 << level
        cells = np.minimum((points * bins).astype(np.int64), bins - 1)
        cells += bins * np.arange(DIMENSIONS)
        counts = np.bincount(cells.ravel(), minlength=bins * DIMENSIONS)
        levels.append(counts.reshape(DIMENSIONS, bins))
    return tuple(levels)


def spectral_coordinates(matrix: sp.csr_matrix, hashes: Array) -> Array:
    """``[n, 6]`` magnitudes in the eigenvectors of the largest eigenvalues, each at most 1.

    Dimensions beyond the matrix's rank are 0.

    Args:
        matrix: ``[n, n]`` symmetric.
        hashes: ``[n]`` uint64 keyed hash of each node's id.
    """
    block = polar_factor(hashed_uniform(hashes, OVERSAMPLED))
    for _ in range(ROUNDS):
        block = polar_factor(matrix @ block)
    values, vectors = symmetric_eigen(gram(block, matrix @ block))
    size = np.abs(values)
    leading = np.argsort(-size, kind="stable")[:DIMENSIONS]
    points = np.abs(times(block, np.ascontiguousarray(vectors[:, leading])))
    top = points.max(axis=0, initial=0.0)
    present = (size[leading] > RELATIVE_ZERO * size.max()) & (top > 0)
    return np.asarray(points / np.where(present, top, np.inf))


def pyramid_match(one: Histogram, other: Histogram) -> float:
    """Kernel of two graphs over its value for equal ones, in [1/8, 1].

    A match that is new at level l, coming from the finest, weighs 2^l / 2^(L-1). All sums are of
    integers, so nothing is rounded before the one division.
    """
    n, m = int(one[0][0].sum()), int(other[0][0].sum())
    shared = [int(np.minimum(a * m, b * n).sum()) for a, b in zip(one, other, strict=True)]
    finest = LEVELS - 1
    matched = shared[finest] << finest
    matched += sum((shared[level] - shared[level + 1]) << level for level in range(finest))
    return matched / ((DIMENSIONS * n * m) << finest)


def softmax(scores: Sequence[float]) -> list[float]:
    """Positive shares that add up to 1."""
    powers = [math.exp(score - max(scores)) for score in scores]
    total = math.fsum(powers)
    return [power / total for power in powers]
