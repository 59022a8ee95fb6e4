"""The learned aggregator's parameters: a gate over shards, and a log-linear stack of experts.

Everything is fitted on the same few rows by L-BFGS under a Gaussian prior, in float64. Both models
treat the shards alike: their parameters do not grow with the number of shards, and renumbering the
shards moves no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]

EXPERTS = ("gate", "mean", "propagation", "neighbours", "ridge", "correct_and_smooth")
GATE_PRIOR = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # follow the affinity
GATE_SPREAD, STACK_SPREAD = 1.0, 0.5  # standard deviations of the priors
NODE_FEATURES = 3  # constant, log degree, whether a neighbour has a training label
FEW_ROWS = 200  # below: one weight an expert, and the gate's prior
FLOOR = 1e-6  # smallest probability whose logarithm is taken
RIDGE_SCALE = 4.0  # logits per unit of ridge score
ITERATIONS = 40
NEAR = 0.1  # largest slope that is left: answers move by some 0.003, as against 0.0001


@dataclass(frozen=True, eq=False)
class GateInput:
    """What the gate reads about n rows and s shards.

    Attributes:
        affinity: ``[n, s]`` share of each shard near the row.
        posteriors: ``[s, n, C]`` answers of the submodels.
        held: ``[s, C]`` training labels of each class that a shard owns.
        log_degree: ``[n]`` centred log degree.
    """

    affinity: Array
    posteriors: Array
    held: Array
    log_degree: Array

    @cached_property
    def answers(self) -> torch.Tensor:
        """``[s, n, C]`` float64 answers of the submodels."""
        return torch.from_numpy(self.posteriors).double()

    @cached_property
    def features(self) -> torch.Tensor:
        """``[s, n, 8]`` float64 inputs of the gate's linear score."""
        return gate_features(self)


def node_features(degree: Array, beside_label: Array) -> Array:
    """``[n, 3]`` float64: constant, centred log degree, half for a labelled neighbour or minus."""
    log_degree = torch.log1p(torch.from_numpy(degree.astype(np.float64))).numpy() / 2 - 1
    return np.stack([np.ones(len(degree)), log_degree, beside_label - 0.5], axis=1)


def gate_features(given: GateInput) -> torch.Tensor:
    """``[s, n, 8]`` float64 inputs of the gate's linear score."""
    answers = given.answers
    num_shards, num_rows, num_classes = answers.shape
    share = torch.log(torch.from_numpy(given.affinity).T + 0.1 / num_shards)
    entropy = -(answers * torch.log(answers.clamp(min=FLOOR))).sum(dim=2)
    entropy = entropy / torch.log(torch.tensor(float(max(num_classes, 2))))
    mean = answers.mean(dim=0)
    held = torch.from_numpy(given.held).double()
    part = torch.log((held + 1) / (held.sum(dim=0) + num_shards))
    size = torch.log((held.sum(dim=1) + 1) / (held.sum() + num_shards))
    largest, choice = answers.max(dim=2)
    log_degree = torch.from_numpy(given.log_degree).double()
    return torch.stack(
        [
            share,
            entropy,
            largest,
            (answers * mean).sum(dim=2),
            torch.gather(part, 1, choice),
            size[:, None].expand(num_shards, num_rows),
            share * log_degree,
            entropy * log_degree,
        ],
        dim=2,
    )


def gated(given: GateInput, theta: Array) -> Array:
    """``[n, C]`` float64 mixture of the submodels' answers under the gate."""
    weights = torch.softmax(given.features @ torch.from_numpy(theta), dim=0)
    return torch.einsum("sn,snc->nc", weights, given.answers).numpy()


def fit_gate(given: GateInput, y: Array) -> Array:
    """``[8]`` gate parameters with the highest penalised likelihood of ``y`` (``[n]``)."""
    prior = torch.tensor(GATE_PRIOR, dtype=torch.float64)
    if len(y) < FEW_ROWS or not len(given.posteriors):
        return prior.numpy()
    inputs = given.features
    chance = given.answers[:, torch.arange(len(y)), torch.from_numpy(y).long()].clamp(min=FLOOR)

    def loss(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.softmax(inputs @ theta, dim=0)
        joint = weights * chance
        evidence = joint.sum(dim=0)
        slope = torch.einsum("sn,snf->f", weights - joint / evidence, inputs)
        away = (theta - prior) / GATE_SPREAD**2
        value = -torch.log(evidence).sum() + ((theta - prior) * away).sum() / 2
        return value, slope + away

    return minimise(loss, prior).numpy()


def log_experts(experts: Mapping[str, Array]) -> Array:
    """``[E, n, C]`` float64 logits of the experts, in the order of EXPERTS."""
    logits = []
    for name in EXPERTS:
        values = torch.from_numpy(np.asarray(experts[name], np.float64))
        if name == "ridge":
            logits.append(values * RIDGE_SCALE)
        else:
            logits.append(torch.log(values.clamp(min=FLOOR)))
    return torch.stack(logits).numpy()


def stacked(logits: Array, nodes: Array, weights: Array) -> Array:
    """``[n, C]`` float64 probabilities.

    Args:
        logits: ``[E, n, C]`` of the experts.
        nodes: ``[n, q]`` node features.
        weights: ``[E, q]``.
    """
    mixed = np.zeros(logits.shape[1:])
    shares = nodes @ weights.T
    for expert, logit in enumerate(logits):
        mixed += shares[:, expert, None] * logit
    mixed -= mixed.max(axis=1, keepdims=True)
    powers = torch.from_numpy(mixed).exp().numpy()
    return np.asarray(powers / np.add.accumulate(powers, axis=1)[:, -1:])


def fit_stack(logits: Array, nodes: Array, y: Array) -> Array:
    """``[E, 3]`` weights of the experts with the highest penalised likelihood of ``y``.

    With fewer than FEW_ROWS rows the weights do not depend on the node.

    Args:
        logits: ``[E, n, C]`` of the experts.
        nodes: ``[n, 3]`` node features.
        y: ``[n]`` class indices.
    """
    width = NODE_FEATURES if len(y) >= FEW_ROWS else 1
    values, inputs = torch.from_numpy(logits), torch.from_numpy(nodes[:, :width].copy())
    target = torch.from_numpy(y).long()
    each = torch.arange(len(y))
    prior = torch.zeros(len(logits), width, dtype=torch.float64)
    prior[:, 0] = 1 / len(logits)
    centre = prior.flatten()
    design = (inputs.T[:, :, None] * values[:, None]).flatten(2).flatten(0, 1)  # [E q, n C]

    def loss(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mixed = (flat @ design).view(values.shape[1:])
        likely = torch.log_softmax(mixed, dim=1)
        slope = likely.exp()
        slope[each, target] -= 1
        away = (flat - centre) / STACK_SPREAD**2
        value = -likely[each, target].sum() + ((flat - centre) * away).sum() / 2
        return value, design @ slope.flatten() + away

    found = torch.zeros(len(logits), NODE_FEATURES, dtype=torch.float64)
    found[:, :width] = minimise(loss, centre).view_as(prior)
    return found.numpy()


def minimise(
    loss: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], start: torch.Tensor
) -> torch.Tensor:
    """Argument of the least value, by L-BFGS with a strong Wolfe line search."""
    point = start.clone()
    optimizer = torch.optim.LBFGS(
        [point], max_iter=ITERATIONS, tolerance_grad=NEAR, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        value, point.grad = loss(point)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return point


def held_labels(owner: Array, labels: Array, shards: Sequence[int], num_classes: int) -> Array:
    """``[s, C]`` training labels of each class that each shard owns."""
    known = labels >= 0
    counts = [
        np.bincount(labels[known & (owner == shard)], minlength=num_classes) for shard in shards
    ]
    return np.asarray(counts, np.float64).reshape(len(shards), num_classes)
