"""LiRA: how likely an answer is from a submodel that had the node, against one that had not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

POOLED_BELOW = 32  # shadows; with fewer, all nodes share a variance
SHRINKAGE = 0.5  # of a node's variance towards the mean over the nodes, with that many or more
MIN_SD = 1e-6  # of log odds; below it a node's answer does not move at all
FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class Normals:
    """A normal for each node's log odds, with and without the node in training, ``[f]`` each."""

    mean_in: Array
    sd_in: Array
    mean_out: Array
    sd_out: Array


def fit_normals(shadows: Array, member: Array) -> Normals:
    """Fit both normals of every node.

    Args:
        shadows: ``[N, f]`` log odds of the nodes under the shadow submodels.
        member: ``[N, f]`` bool, whether the node was in that submodel's training; each node in at
            least two and out of at least two.

    Reference:
        Carlini et al., IEEE S&P 2022, section V-C. Deviation: variances are shrunk towards their
        mean over the nodes, where the paper takes either each node's or one for all.
    """
    mean_in, sd_in = _moments(shadows, member)
    mean_out, sd_out = _moments(shadows, ~member)
    share = 1.0 if len(shadows) < POOLED_BELOW else SHRINKAGE
    sd_in, sd_out = (np.sqrt(share * (v**2).mean() + (1 - share) * v**2) for v in (sd_in, sd_out))
    return Normals(mean_in, np.maximum(sd_in, MIN_SD), mean_out, np.maximum(sd_out, MIN_SD))


def _moments(values: Array, chosen: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the chosen cells of each column."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, values, 0).sum(axis=0) / count
    squares = np.where(chosen, (values - mean) ** 2, 0).sum(axis=0)
    return mean, np.sqrt(squares / (count - 1))


def log_ratio(normals: Normals, answers: Array) -> Array:
    """``[m, f]`` log N(answer; in) - log N(answer; out) of every model and node.

    Reference:
        Carlini et al., IEEE S&P 2022, algorithm 1 (online attack).
    """
    inside = (answers - normals.mean_in) / normals.sd_in
    outside = (answers - normals.mean_out) / normals.sd_out
    width = np.log(normals.sd_out) - np.log(normals.sd_in)
    ratio: Array = (outside**2 - inside**2) / 2 + width
    return ratio


def auc(positive: Array, negative: Array) -> float:
    """Chance that a positive score is above a negative one, ties half (Mann-Whitney)."""
    return float(_wins(positive.ravel(), negative.ravel()) / (positive.size * negative.size))


def tpr_at(positive: Array, negative: Array, share: float = FALSE_POSITIVES) -> float:
    """Share of positive scores above all but ``share`` of the negative ones."""
    threshold = np.quantile(negative.ravel(), 1 - share, method="higher")
    return float((positive.ravel() > threshold).mean())


def _wins(positive: Array, negative: Array) -> float:
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float((below + upto).sum() / 2)


def bootstrap(
    statistic: Callable[[Array, Array], float],
    groups: tuple[Array, Array],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of a statistic of two groups of models, resampled by model, never by node.

    Args:
        statistic: of positive and negative scores, ``[m, f]`` each.
        groups: both, one row a model.
        resamples: number of resamples.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = [group[rng.integers(len(group), size=len(group))] for group in groups]
        values.append(statistic(*drawn))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
