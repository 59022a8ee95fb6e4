"""GraphRevoker's partition, as ``benchmarks.graphrevoker`` tries it; no part of the product.

Reference:
    "Graph Unlearning with Efficient Partial Retraining" (GraphRevoker), WWW companion 2024.
    Deviations are named at each function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cluster.digest import derive_seed
from cluster.graph import UNLABELLED
from cluster.partitioners.base import Partitioner, Problem
from cluster.partitioners.compiled import Csr, compiled
from cluster.partitioners.louvain import louvain
from shards.submodels.inputs import ModelInput, normalise_rows
from shards.submodels.layers import SAGE, Dropout, Submodel, matrix, vector
from shards.submodels.rowwise import FEATURE_SCALE

Array = npt.NDArray[Any]

HIDDEN = 64
TIME_WEIGHT = 1e-3  # as published
SWEEPS = 10


class Assigner(Submodel):
    """Two SAGE layers and a linear one: ``[T, k]`` scores of each shard."""

    hops = 2

    def __init__(self, features: int, shards: int) -> None:
        super().__init__()
        self.body = SAGE(features, HIDDEN, HIDDEN, self.hops)
        self.weight, self.bias = matrix(HIDDEN, shards), vector(shards)

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Scores of every row."""
        return torch.relu(self.body(inputs, dropout)) @ self.weight + self.bias


@dataclass(frozen=True)
class Network:
    """Partition by a network; ``labels`` weighs the label entropy, positive to minimise it.

    Minimised, as printed and coded by the authors, it gathers a label in few shards; the text of
    the paper wants labels mixed, which is a weight below 0.
    """

    lr: float
    epochs: int
    labels: float

    def __call__(self, problem: Problem) -> Array:
        """Train the network on the relaxed loss, then place the surest nodes first.

        Deviation: the capacity is the product's.
        """
        inputs, labels = _inputs(problem), _one_hot(problem)
        model = Assigner(problem.graph.schema.num_features, problem.num_shards)
        seed = derive_seed(problem.seed, "revoker") % 2**63
        model.initialise(torch.Generator().manual_seed(seed))
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=1e-5)
        for _ in range(self.epochs):
            optimizer.zero_grad()
            shares = model(inputs, None).softmax(1)
            loss = partition_loss(shares, inputs, labels, self.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            return place(model(inputs, None).softmax(1).numpy(), problem)


def partition_loss(shares: Tensor, inputs: ModelInput, labels: Tensor, weight: float) -> Tensor:
    """Retraining time, normalised cut and label entropy of soft shards ``[T, k]``."""
    near = inputs.operator("sum") @ shares
    size, inside = shares.sum(0), (shares * near).sum(0)
    volume = torch.from_numpy(inputs.degree) @ shares
    time = (size * inside).sum() / len(shares)
    cut = ((volume - inside) / volume.clamp_min(1e-6)).sum()
    held = labels.T @ shares
    mix = held / held.sum(0).clamp_min(1e-6)
    entropy = -(mix * mix.clamp_min(1e-9).log()).sum()
    return cut + TIME_WEIGHT * time + weight * entropy


def _inputs(problem: Problem) -> ModelInput:
    x = normalise_rows(problem.graph.x[problem.rows]) * np.float32(FEATURE_SCALE)
    degree = np.diff(problem.indptr).astype(np.float32)
    return ModelInput(x, problem.indptr, problem.indices, None, degree, symmetric=True)


def _one_hot(problem: Problem) -> Tensor:
    y = problem.graph.y[problem.rows]
    labels = torch.zeros(len(y), problem.graph.schema.num_classes)
    labelled = np.flatnonzero(y != UNLABELLED)
    labels[labelled, y[labelled].astype(np.int64)] = 1
    return labels


def place(shares: Array, problem: Problem) -> Array:
    """``[T]`` shard of each node: the surest first, each in its best shard with room."""
    shards = np.empty(len(shares), np.int32)
    room = np.full(problem.num_shards, problem.capacity)
    for v in np.lexsort((problem.hashes, -shares.max(axis=1))):
        chosen = int(np.where(room > 0, shares[v], -1).argmax())
        shards[v] = chosen
        room[chosen] -= 1
    return shards


@dataclass(frozen=True)
class Greedy:
    """The same properties by local search from Louvain; ``labels`` below 0 mixes the labels."""

    labels: float

    def __call__(self, problem: Problem) -> Array:
        """Sweep over the nodes; each moves where its neighbours are and its label is (not) held.

        Deviation: the time term is the capacity, which is all it is where shards are alike.
        """
        shards = louvain(problem).astype(np.int32)
        y = problem.graph.y[problem.rows].astype(np.int64)
        held = np.zeros((problem.num_shards, problem.graph.schema.num_classes))
        labelled = y != UNLABELLED
        np.add.at(held, (shards[labelled], y[labelled]), 1)
        fair = np.maximum(held.sum(axis=0), 1) / problem.num_shards
        sizes = np.bincount(shards, minlength=problem.num_shards)
        order = np.argsort(problem.hashes)
        csr = (problem.indptr, problem.indices)
        for _ in range(SWEEPS):
            _sweep(csr, order, y, shards, sizes, held, fair, self.labels, problem.capacity)
        return shards


@compiled
def _sweep(
    csr: Csr,
    order: Array,
    y: Array,
    shards: Array,
    sizes: Array,
    held: Array,
    fair: Array,
    weight: float,
    capacity: int,
) -> None:
    """Move every node once, in place: share of its neighbours plus weighted share of its label."""
    indptr, indices = csr
    score = np.empty(len(sizes))
    for v in order:
        old, label = shards[v], y[v]
        score[:] = 0.0
        neighbours = indices[indptr[v] : indptr[v + 1]]
        for u in neighbours:
            score[shards[u]] += 1.0 / len(neighbours)
        sizes[old] -= 1
        if label >= 0:
            held[old, label] -= 1
            score += weight * held[:, label] / fair[label]
        new = old
        for s in range(len(sizes)):
            if sizes[s] < capacity and score[s] > score[new] + 1e-12:
                new = s
        shards[v] = new
        sizes[new] += 1
        if label >= 0:
            held[new, label] += 1


CUTS: Mapping[str, Partitioner] = {
    "network, as published": Network(1e-3, 30, 1e-3),
    "network, lr 0.01, 100 epochs": Network(1e-2, 100, 1e-3),
    "network, lr 0.01, 300 epochs, labels mixed 0.1": Network(1e-2, 300, -0.1),
    "network, 300 epochs, labels mixed 1": Network(1e-3, 300, -1.0),
    "greedy, labels mixed 2": Greedy(-2.0),
    "greedy, labels mixed 1": Greedy(-1.0),
    "greedy, labels mixed 0.5": Greedy(-0.5),
    "greedy, labels mixed 0.1": Greedy(-0.1),
}
