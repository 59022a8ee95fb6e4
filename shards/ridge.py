"""A ridge head on propagated features whose statistics are whole numbers, hence exact.

Features of a node are its own row and the average over a two-step walk (each step stays or goes
on, all alike), each scaled to length 1 and rounded to 1/4096. Gram matrix and moments are then sums
of integers below 2^53, which float64 adds without rounding, in any order and by any kernel. So the
statistics of all shards add up to those of the whole, and those of rows that moved can be taken
off and put on again: what comes out is, bit for bit, what a computation from nothing on the
surviving rows gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from cluster.digest import derive_seed, keyed_hash
from cluster.errors import CorruptArtefactError
from cluster.graph import Graph
from shards.content import incoming
from shards.jobs import GraphMove
from shards.submodels.inputs import normalise_rows
from shards.submodels.rowwise import times

Array = npt.NDArray[Any]

UNIT = 4096  # a feature row has length 1 in these units
FINE = 2.0**24  # propagated rows are rounded to 1/FINE before their length is taken
RAW = 1.5  # features up to RAW x width columns stay as they are; wider ones are projected
SIGNS = 4  # entries of each feature in the projection
LAMBDAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # times the mean of the Gram's diagonal
FIRST_LAMBDA = 3  # position of the one that is tried first
THINNED = 4  # one in so many columns tells the lambdas apart
LANES = 16
CHUNK = 2048  # rows that are worked on at once
SCORED = 512  # rows whose scores are taken at once: their features fit a core's cache


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

    Features lie in slots, so that nothing is moved about when rows go; a free slot is cleared.

    Attributes:
        slots: ``[N]`` slot of each row.
        near: ``[S, w]`` float32 own features, projected where they are wide.
        z: ``[S, d]`` int16 ridge features in units of 1/UNIT, the last column constant.
        labels: ``[N]`` training label, negative where a row does not count.
        gram: ``[d, d]`` float64, whole numbers.
        moment: ``[d, C]`` float64, whole numbers.
    """

    slots: Array
    near: Array
    z: Array
    labels: Array
    gram: Array
    moment: Array

    def features(self, rows: Array | slice) -> Array:
        """``[n, d]`` int16 ridge features of some rows; without a copy where they lie together."""
        slots = self.slots[rows]
        together = len(slots) and slots[-1] - slots[0] == len(slots) - 1
        found: Array = self.z[slots[0] : slots[-1] + 1] if together else self.z[slots]
        return found


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
    rows = np.arange(graph.num_nodes)
    near = own_features(graph, rows, spec)
    z = features(graph, near, rows, rows)
    known = np.flatnonzero(labels >= 0)
    sums = no_statistics(z.shape[1], graph.schema.num_classes)
    add_statistics(*sums, z, known, labels[known])
    return RidgeState(rows, near, z, labels, *sums)


def update_state(
    old: RidgeState, graph: Graph, labels: Array, spec: RidgeSpec, move: GraphMove
) -> RidgeState:
    """The state of a changed graph, computing only what moved; the bits of :func:`fit_state`.

    Args:
        old: state before the change; it is used up.
        graph: the changed graph.
        labels: as in :func:`fit_state`, for the changed graph.
        spec: what decides the features.
        move: what the change moved.
    """
    slots = old.slots[move.kept]
    gone = np.ones(len(old.slots), bool)
    gone[move.kept] = False
    differs = labels != old.labels[move.kept]
    differs[move.moved] = True
    leaving = gone.copy()
    leaving[move.kept[differs]] = True
    leaving &= old.labels >= 0
    left = old.z[old.slots[leaving]]
    for part in (old.near, old.z):
        part[old.slots[gone]] = 0
    old.near[slots[move.renewed]] = own_features(graph, move.renewed, spec)
    old.z[slots[move.moved]] = features(graph, old.near, slots, move.moved)
    entering = differs & (labels >= 0)
    add_statistics(old.gram, old.moment, left, np.arange(len(left)), old.labels[leaving], -1)
    add_statistics(old.gram, old.moment, old.z, slots[entering], labels[entering])
    return RidgeState(slots, old.near, old.z, labels, old.gram, old.moment)


# ---- features


def own_features(graph: Graph, rows: Array, spec: RidgeSpec) -> Array:
    """``[n, w]`` float32 row-normalised features of some rows, projected where they are wide."""
    near = normalise_rows(graph.x[rows])
    if near.shape[1] > RAW * spec.width:
        near = near @ projection(near.shape[1], spec)
    return np.asarray(near.todense() if sp.issparse(near) else near, np.float32)


def features(graph: Graph, near: Array, slots: Array, rows: Array) -> Array:
    """``[n, d]`` int16 ridge features of some rows; each row's bits are its own.

    Args:
        graph: the graph.
        near: ``[S, w]`` own features by slot.
        slots: ``[N]`` slot of each row.
        rows: the rows wanted.
    """
    last = walk_step(graph, rows)
    middle = np.unique(last.indices)
    first = walk_step(graph, middle)
    once = times(_relabelled(first, slots[first.indices], len(near)), near)
    twice = times(_relabelled(last, np.searchsorted(middle, last.indices), len(middle)), once)
    constant = np.full((len(rows), 1), UNIT, np.int16)
    return np.concatenate([unit_rows(near[slots[rows]]), unit_rows(twice), constant], axis=1)


def _relabelled(matrix: sp.csr_matrix, columns: Array, width: int) -> sp.csr_matrix:
    """The same entries in the same order under other column numbers."""
    entries = (matrix.data, columns, matrix.indptr)
    return sp.csr_matrix(entries, shape=(matrix.shape[0], width))


def walk_step(graph: Graph, rows: Array) -> sp.csr_matrix:
    """``[n, N]`` float32 rows of (D + I)^-1 (A + I), entries in canonical order."""
    adjacency = graph.adjacency
    at, place = incoming(adjacency, rows)
    weight = np.ones(len(at), np.float32) if adjacency.weight is None else adjacency.weight[at]
    column = np.concatenate([adjacency.indices[at], rows])
    row = np.concatenate([place, np.arange(len(rows))])
    share = np.concatenate([weight, np.ones(len(rows), np.float32)]).astype(np.float64)
    share /= adjacency.degree[rows].astype(np.float64)[row] + 1
    order = np.lexsort((column, row))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))])
    entries = (share[order].astype(np.float32), column[order], indptr)
    return sp.csr_matrix(entries, shape=(len(rows), graph.num_nodes))


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


def no_statistics(width: int, num_classes: int) -> tuple[Array, Array]:
    """Gram ``[d, d]`` and moments ``[d, C]`` of no row."""
    return np.zeros((width, width)), np.zeros((width, num_classes))


def add_statistics(
    gram: Array, moment: Array, z: Array, slots: Array, labels: Array, sign: int = 1
) -> None:
    """Put labelled rows into the sums of whole numbers, or take them off, in place.

    Args:
        gram: ``[d, d]``.
        moment: ``[d, C]``.
        z: ``[S, d]`` int16 features by slot.
        slots: ``[n]`` slots of the rows.
        labels: ``[n]`` their labels.
        sign: 1 to put them in, -1 to take them off.
    """
    for first in range(0, len(slots), CHUNK):
        exact = torch.from_numpy(z[slots[first : first + CHUNK]]).double()
        part = torch.from_numpy(labels[first : first + CHUNK]).long()
        hot = torch.nn.functional.one_hot(part, moment.shape[1]).double()
        torch.from_numpy(gram).addmm_(exact.T, exact, alpha=sign)
        torch.from_numpy(moment).addmm_(exact.T, hot, alpha=sign)


def solve(state: RidgeState, sample: Array) -> RidgeHead:
    """The ridge head, its lambda chosen by leave-one-out.

    Args:
        state: statistics.
        sample: rows with a training label, on which the residuals are taken.
    """
    num_classes = state.moment.shape[1]
    gram = torch.from_numpy(state.gram).float() / UNIT**2
    sums = state.moment.sum(axis=1, keepdims=True) / num_classes  # labels are centred by 1 / C
    moment = torch.from_numpy((state.moment - sums) / UNIT).float()
    scale = float(gram.diagonal().double().mean()) or 1.0
    ridge = _choose_lambda(gram, moment, scale, state, sample)
    for larger in (step for step in LAMBDAS if step >= ridge):  # the next one where float32 fails
        factor = _factor(gram, larger * scale)
        if factor is not None:
            return RidgeHead(torch.cholesky_solve(moment, factor).numpy(), larger)
    raise CorruptArtefactError("ridge statistics", "are no sums of squares; rebuild the system")


def _choose_lambda(
    gram: torch.Tensor, moment: torch.Tensor, scale: float, state: RidgeState, sample: Array
) -> float:
    """Lambda of the nearest minimum of the leave-one-out error, from the middle of LAMBDAS.

    The residuals ``(y - f) / (1 - h)`` (Hastie et al. 2009, eq. 7.52) are those of a head on every
    fourth column. A fourth of the columns makes a fourth of the kernel, so a fourth of the lambda
    does there what the whole does here, at a small part of the work.
    """
    some = slice(0, None, THINNED)
    root = scale**0.5  # the Gram is taken in units of scale, so are rows and moments
    gram, moment = gram[some, some] / scale, moment[some] / root
    probe = torch.from_numpy(state.features(sample)[:, some]).float() / (UNIT * root)
    labels = torch.from_numpy(state.labels[sample]).long()
    target = torch.nn.functional.one_hot(labels, moment.shape[1]).float() - 1 / moment.shape[1]
    tried: dict[int, float] = {}

    def error(at: int) -> float:
        if not 0 <= at < len(LAMBDAS):
            return float("inf")
        if at not in tried:
            tried[at] = _leave_one_out(gram, moment, LAMBDAS[at] / THINNED, probe, target)
        return tried[at]

    best = FIRST_LAMBDA
    step = -1 if error(best - 1) < error(best) else 1
    while error(best + step) < error(best):
        best += step
    return LAMBDAS[best]


def _leave_one_out(
    gram: torch.Tensor,
    moment: torch.Tensor,
    ridge: float,
    probe: torch.Tensor,
    target: torch.Tensor,
) -> float:
    """Sum of squared leave-one-out residuals on the probe rows; infinite where float32 fails."""
    factor = _factor(gram, ridge)
    if factor is None:
        return float("inf")
    weights = torch.cholesky_solve(moment, factor)
    leverage = torch.linalg.solve_triangular(factor, probe.T, upper=False).square().sum(dim=0)
    residual = (target - probe @ weights) / (1 - leverage).clamp(min=1e-3)[:, None]
    return float(residual.double().square().sum())


def _factor(gram: torch.Tensor, ridge: float) -> torch.Tensor | None:
    """Cholesky factor of ``gram + ridge``, None where rounding leaves it indefinite."""
    shifted = gram.clone()
    shifted.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    return None if bool(failed) else factor


def scores(state: RidgeState, head: RidgeHead) -> Array:
    """``[N, C]`` float32 scores; in training they aim at 1 for the label and 0 elsewhere."""
    return scores_of(state.features, len(state.slots), head)


def scores_of(features: Callable[[slice], Array], size: int, head: RidgeHead) -> Array:
    """``[n, C]`` float32 scores of n rows, whose features are given ``SCORED`` at a time."""
    num_classes = head.weights.shape[1]
    padded = -(-num_classes // LANES) * LANES  # a product with full lanes is twice as fast
    weights = torch.zeros(len(head.weights), padded)
    weights[:, :num_classes] = torch.from_numpy(head.weights) / UNIT
    buffer = torch.empty(
        SCORED, len(head.weights)
    )  # fresh memory would cost as much as the product
    found = torch.empty(size, padded)
    for first in range(0, size, SCORED):
        piece = torch.from_numpy(features(slice(first, first + SCORED)))
        torch.mm(buffer[: len(piece)].copy_(piece), weights, out=found[first : first + len(piece)])
    return found[:, :num_classes].numpy() + np.float32(1 / num_classes)
