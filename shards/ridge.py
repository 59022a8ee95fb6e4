"""A ridge head on propagated features whose statistics are whole numbers, hence exact.

Features of a node are its own row and the two-hop average of its neighbourhood, each scaled to
length 1 and rounded to 1/4096. Gram matrix and moments are then sums of integers below 2^53, which
float64 adds without rounding, in any order and by any kernel. So the statistics of all shards add
up to those of the whole, and those of rows that moved can be taken off and put on again: what comes
out is, bit for bit, what a computation from nothing on the surviving rows gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from cluster.digest import derive_seed, keyed_hash
from cluster.graph import Graph
from shards.ball import Ball, ball, whole
from shards.submodels.inputs import ball_input
from shards.submodels.rowwise import operator, times

Array = npt.NDArray[Any]

HOPS = 2
UNIT = 4096  # a feature row has length 1 in these units
FINE = 2.0**24  # propagated rows are rounded to 1/FINE before their length is taken
RAW = 1.5  # features up to RAW x width columns stay as they are; wider ones are projected
SIGNS = 4  # entries of each feature in the projection
LAMBDAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # times the mean of the Gram's diagonal
FIRST_LAMBDA = 3  # position of the one that is tried first
CHUNK = 4096  # rows that are worked on at once


@dataclass(frozen=True)
class RidgeSpec:
    """What decides the features.

    Attributes:
        width: columns of each of the two parts where features are projected.
        seed: seed of the projection.
    """

    width: int
    seed: int


@dataclass(frozen=True, eq=False)
class RidgeState:
    """Features of every row and the statistics of the labelled training rows.

    Attributes:
        z: ``[N, d]`` int16 features in units of 1/UNIT, the last column constant.
        labels: ``[N]`` training label, negative where a row does not count.
        gram: ``[d, d]`` float64, whole numbers.
        moment: ``[d, C]`` float64, whole numbers.
    """

    z: Array
    labels: Array
    gram: Array
    moment: Array


@dataclass(frozen=True, eq=False)
class RidgeHead:
    """A fitted head.

    Attributes:
        weights: ``[d, C]`` float32; scores are ``z / UNIT @ weights + 1 / C``.
        ridge: the lambda chosen, relative to the mean of the Gram's diagonal.
    """

    weights: Array
    ridge: float


def fit_state(graph: Graph, labels: Array, spec: RidgeSpec) -> RidgeState:
    """Features and statistics from nothing.

    Args:
        graph: the current graph.
        labels: ``[N]`` training label of each row, negative where a row does not count.
        spec: what decides the features.
    """
    z = features(whole(graph), spec)
    gram, moment = statistics(z, labels, graph.schema.num_classes)
    return RidgeState(z, labels, gram, moment)


def update_state(
    old: RidgeState, graph: Graph, labels: Array, spec: RidgeSpec, kept: Array, moved: Array
) -> RidgeState:
    """The state of a changed graph, computing only what moved; the bits of :func:`fit_state`.

    Args:
        old: state before the change.
        graph: the changed graph.
        labels: as in :func:`fit_state`, for the changed graph.
        spec: what decides the features.
        kept: ``[N]`` row that each row had before, ascending.
        moved: ``[N]`` bool, rows whose features within HOPS steps may have changed.
    """
    z = old.z[kept]
    rows = np.flatnonzero(moved)
    z[rows] = features(ball(graph, rows, HOPS), spec)
    gone = np.ones(len(old.z), bool)
    gone[kept] = False
    differs = moved | (labels != old.labels[kept])
    gone[kept[differs]] = True
    num_classes = graph.schema.num_classes
    less = statistics(old.z[gone], old.labels[gone], num_classes)
    more = statistics(z[differs], labels[differs], num_classes)
    gram, moment = old.gram - less[0] + more[0], old.moment - less[1] + more[1]
    return RidgeState(z, labels, gram, moment)


# ---- features


def features(around: Ball, spec: RidgeSpec) -> Array:
    """``[t, d]`` int16 features of a ball's targets; the ball reaches HOPS steps."""
    inputs = ball_input(around, "cpu")
    near = inputs.x
    if near.shape[1] > RAW * spec.width:
        near = near @ projection(near.shape[1], spec)
    near = np.asarray(near.todense() if sp.issparse(near) else near, np.float32)
    far, step = near, operator(inputs, "gcn")
    for _ in range(HOPS):
        far = times(step, far)
    constant = np.full((len(around.targets), 1), UNIT, np.int16)
    parts = [unit_rows(near[around.targets]), unit_rows(far[around.targets]), constant]
    return np.concatenate(parts, axis=1)


@lru_cache(maxsize=4)
def projection(num_features: int, spec: RidgeSpec) -> sp.csr_matrix:
    """``[F, width]`` sparse random signs, from the seed alone (Kane & Nelson 2014)."""
    seed = derive_seed(spec.seed, "ridge-projection")
    hashed = keyed_hash("projection", seed, list(range(num_features * SIGNS)))
    columns = ((hashed >> np.uint64(1)) % np.uint64(spec.width)).astype(np.int64)
    signs = np.where(hashed & np.uint64(1), 1.0, -1.0).astype(np.float32) / np.sqrt(SIGNS)
    rows = np.repeat(np.arange(num_features), SIGNS)
    shape = (num_features, spec.width)
    return sp.csr_matrix((signs.astype(np.float32), (rows, columns)), shape=shape)


def unit_rows(values: Array) -> Array:
    """Rows scaled to length 1, in whole units of 1/UNIT; a zero row stays zero."""
    scaled = np.empty(values.shape, np.int16)
    for first in range(0, len(values), CHUNK):
        fine = np.rint(values[first : first + CHUNK].astype(np.float64) * FINE)
        whole_numbers = fine.astype(np.int64)
        squares = np.einsum("nd,nd->n", whole_numbers, whole_numbers)
        length = np.sqrt(np.maximum(squares, 1).astype(np.float64))
        scaled[first : first + CHUNK] = np.rint(fine * (UNIT / length)[:, None])
    return scaled


# ---- statistics and head


def statistics(z: Array, labels: Array, num_classes: int) -> tuple[Array, Array]:
    """Gram ``[d, d]`` and moments ``[d, C]`` of the labelled rows: sums of whole numbers."""
    width = z.shape[1]
    gram, moment = torch.zeros(width, width, dtype=torch.float64), np.zeros((width, num_classes))
    rows = np.flatnonzero(labels >= 0)
    for first in range(0, len(rows), CHUNK):
        part = rows[first : first + CHUNK]
        exact = torch.from_numpy(z[part]).double()
        gram += exact.T @ exact
        given = torch.nn.functional.one_hot(torch.from_numpy(labels[part]).long(), num_classes)
        moment += (exact.T @ given.double()).numpy()
    return gram.numpy(), moment


def solve(state: RidgeState, sample: Array) -> RidgeHead:
    """The ridge head whose leave-one-out error is least on some rows.

    Lambda climbs from the middle of LAMBDAS to the nearest minimum of the mean squared
    leave-one-out residual ``(y - f) / (1 - h)`` (Hastie et al. 2009, eq. 7.52).

    Args:
        state: statistics.
        sample: rows with a training label, on which the residuals are taken.
    """
    num_classes = state.moment.shape[1]
    gram = torch.from_numpy(state.gram / float(UNIT**2)).float()
    sums = state.moment.sum(axis=1, keepdims=True) / num_classes  # labels are centred by 1 / C
    moment = torch.from_numpy((state.moment - sums) / UNIT).float()
    probe = torch.from_numpy(state.z[sample]).float() / UNIT
    given = torch.nn.functional.one_hot(torch.from_numpy(state.labels[sample]).long(), num_classes)
    target = given.float() - 1 / num_classes
    scale = float(gram.diagonal().double().mean()) or 1.0
    tried: dict[int, tuple[float, torch.Tensor]] = {}

    def error(at: int) -> float:
        if not 0 <= at < len(LAMBDAS):
            return float("inf")
        if at not in tried:
            tried[at] = _leave_one_out(gram, moment, LAMBDAS[at] * scale, probe, target)
        return tried[at][0]

    best = FIRST_LAMBDA
    step = 1 if error(best + 1) < error(best) else -1
    while error(best + step) < error(best):
        best += step
    return RidgeHead(tried[best][1].numpy(), LAMBDAS[best])


def _leave_one_out(
    gram: torch.Tensor,
    moment: torch.Tensor,
    ridge: float,
    probe: torch.Tensor,
    target: torch.Tensor,
) -> tuple[float, torch.Tensor]:
    """Mean squared leave-one-out residual on the probe rows, and the weights."""
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram)))
    weights = torch.cholesky_solve(moment, factor)
    if not len(probe):
        return 0.0, weights
    leverage = torch.linalg.solve_triangular(factor, probe.T, upper=False).square().sum(dim=0)
    residual = (target - probe @ weights) / (1 - leverage).clamp(min=1e-3)[:, None]
    return float(residual.double().square().mean()), weights


def scores(z: Array, head: RidgeHead) -> Array:
    """``[n, C]`` float32 scores; in training they aim at 1 for the label and 0 elsewhere."""
    num_classes = head.weights.shape[1]
    found = np.empty((len(z), num_classes), np.float32)
    weights = torch.from_numpy(head.weights)
    for first in range(0, len(z), CHUNK):
        part = torch.from_numpy(z[first : first + CHUNK]).float() / UNIT
        found[first : first + CHUNK] = (part @ weights).numpy() + np.float32(1 / num_classes)
    return found
