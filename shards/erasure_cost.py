"""Expected erasure cost: the share of all training that requests make the shards do again.

A training costs the rows it reads, so every figure is a sum of shard sizes over the shards that a
request hits. Closed forms for one request and for a batch of K.

Reference:
    Bourtoule et al. (SISA), IEEE S&P 2021, section VI, for disjoint shards; Dukler et al. (SAFE),
    ICCV 2023, for shards that read each other. Deviations: readers are known per record, so a shard
    is hit only by the rows it reads; batches without replacement are exact.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph
from cluster.partition import UNASSIGNED
from shards.shard_graph import ReaderIndex

Array = npt.NDArray[Any]

ROUNDING = 1e-12  # of a sum of probabilities
BATCH_SHARE = 0.01  # of the training rows, in ErasureCost.batch_1_percent


class Cost(NamedTuple):
    """An amount of training.

    Attributes:
        share: of training every submodel once.
        unsharded: of one training on all training rows, as one model without shards needs.
    """

    share: float
    unsharded: float


class Spread(NamedTuple):
    """Single requests by cost, as shares of training every submodel once."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class ErasureCost:
    """What erasing nodes costs, as shares of training every submodel once.

    Attributes:
        one_uniform: one training node, each equally likely.
        one_by_degree: one training node, drawn in proportion to its degree.
        batch_1_percent: one percent of the training nodes at once, drawn without replacement.
        worst: the most expensive training node.
    """

    one_uniform: float
    one_by_degree: float
    batch_1_percent: float
    worst: float

    def to_json(self) -> dict[str, float]:
        """Plain JSON form."""
        return asdict(self)


# ---- who asks


def uniform(graph: Graph, rows: Array) -> Array:
    """``[N]`` probability of a request on each row: the same for each of ``rows``."""
    request = np.zeros(graph.num_nodes)
    request[rows] = 1 / max(len(rows), 1)
    return request


def by_degree(graph: Graph, rows: Array) -> Array:
    """``[N]`` probability in proportion to the number of edges; uniform where there are none."""
    ends = np.concatenate([graph.src, graph.dst])
    degree = np.bincount(ends, minlength=graph.num_nodes)[rows]
    if not degree.sum():
        return uniform(graph, rows)
    request = np.zeros(graph.num_nodes)
    request[rows] = degree / degree.sum()
    return request


# ---- what a request hits


def training_sizes(index: ReaderIndex, num_shards: int) -> Array:
    """``[k]`` rows that each shard's training reads; phantoms are not counted."""
    readers = index.readers if index.read is None else index.readers[index.read]
    return np.bincount(readers, minlength=num_shards)


# The index of these functions is that of retrained_by_nodes: who retrains for a row.


def hit_probability(index: ReaderIndex, request: Array, num_shards: int) -> Array:
    """``[k]`` probability that one request is on a row that the shard reads."""
    reads = np.repeat(request, np.diff(index.indptr))
    return np.bincount(index.readers, weights=reads, minlength=num_shards)


def batch_probability(
    index: ReaderIndex, request: Array, num_shards: int, count: int, *, replacement: bool
) -> Array:
    """``[k]`` probability that ``count`` requests hit the shard at least once.

    With replacement ``1 - (1 - q)^K``; without, the hypergeometric ``1 - C(T - n, K) / C(T, K)``
    for a shard that reads n of the T rows that may be asked.

    Raises:
        ValueError: a draw without replacement is not uniform, or is larger than the rows.
    """
    if replacement:
        rest = np.clip(1 - hit_probability(index, request, num_shards), 0, 1)
        missed: Array = 1 - rest**count
        return missed
    asked = request > 0
    total = int(asked.sum())
    if not np.allclose(request[asked], 1 / max(total, 1)):
        raise ValueError("a batch without replacement needs a uniform request; use replacement")
    if not 0 <= count <= total:
        raise ValueError(f"a batch of {count} without replacement from {total} rows")
    reads = np.repeat(asked, np.diff(index.indptr))
    read = np.bincount(index.readers[reads], minlength=num_shards)
    return np.asarray([_hypergeometric_hit(total, int(n), count) for n in read])


def _hypergeometric_hit(total: int, read: int, count: int) -> float:
    """Probability that ``count`` of ``total`` rows, drawn at once, hold one of ``read`` rows."""
    if count > total - read:
        return 1.0
    miss = (
        math.lgamma(total - read + 1)
        - math.lgamma(total - read - count + 1)
        - math.lgamma(total + 1)
        + math.lgamma(total - count + 1)
    )
    return -math.expm1(min(miss, 0.0))


# ---- what it costs


def row_costs(index: ReaderIndex, sizes: Array) -> Array:
    """``[N]`` rows that are trained on again when a row is erased."""
    rows = np.repeat(np.arange(len(index.owner)), np.diff(index.indptr))
    weights = np.asarray(sizes, np.float64)[index.readers]
    return np.bincount(rows, weights=weights, minlength=len(index.owner))


def expected_cost(index: ReaderIndex, sizes: Array, request: Array) -> Cost:
    """Expected cost of one request.

    Args:
        index: readers of every row.
        sizes: ``[k]`` rows that each shard's training reads.
        request: ``[N]`` probability of a request on each row.
    """
    return _cost(index, sizes, hit_probability(index, request, len(sizes)))


def expected_batch_cost(
    index: ReaderIndex, sizes: Array, request: Array, count: int, *, replacement: bool = False
) -> Cost:
    """Expected cost of a batch: ``sum_i size_i P(shard i is hit)``; each shard trains once.

    Args:
        index: as in :func:`expected_cost`.
        sizes: as in :func:`expected_cost`.
        request: as in :func:`expected_cost`.
        count: K, requests in the batch.
        replacement: as in :func:`batch_probability`.
    """
    hit = batch_probability(index, request, len(sizes), count, replacement=replacement)
    return _cost(index, sizes, hit)


def _cost(index: ReaderIndex, sizes: Array, hit: Array) -> Cost:
    """Cost of shards that train with these probabilities; nothing where nothing trains."""
    expected, rows = float(hit @ sizes), int(np.count_nonzero(index.owner != UNASSIGNED))
    return Cost(expected / max(float(np.sum(sizes)), 1.0), expected / max(rows, 1))


def cost_spread(index: ReaderIndex, sizes: Array, request: Array) -> Spread:
    """Median, 99th percentile and maximum over single requests, weighted by their probability."""
    asked = np.flatnonzero(request > 0)
    if not len(asked):
        return Spread(0.0, 0.0, 0.0)
    costs = row_costs(index, sizes)[asked] / max(float(np.sum(sizes)), 1.0)
    order = np.argsort(costs, kind="stable")
    reached = np.cumsum(request[asked][order])
    levels = np.asarray([0.5, 0.99]) * reached[-1] - ROUNDING
    p50, p99 = costs[order][np.searchsorted(reached, levels)].tolist()
    return Spread(p50, p99, float(costs.max()))


def erasure_cost(graph: Graph, index: ReaderIndex, sizes: Array) -> ErasureCost:
    """Figures of one system; requests are on the training rows."""
    rows = np.flatnonzero(index.owner != UNASSIGNED)
    even = uniform(graph, rows)
    batch = math.ceil(BATCH_SHARE * len(rows))
    return ErasureCost(
        expected_cost(index, sizes, even).share,
        expected_cost(index, sizes, by_degree(graph, rows)).share,
        expected_batch_cost(index, sizes, even, batch).share,
        cost_spread(index, sizes, even).max,
    )
