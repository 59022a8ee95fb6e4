"""A seeded degree-corrected block model with planted classes and features, of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import ConfigError
from cluster.graph import Graph
from cluster.readers.arrays import from_arrays
from cluster.schema import Schema

Array = npt.NDArray[Any]

_ROUNDS = 50  # redraws of self loops and repeated edges before a graph counts as too dense


@dataclass(frozen=True)
class BlockModel:
    """What to draw.

    Attributes:
        num_nodes: N.
        num_classes: C planted classes of about equal size.
        mean_degree: neighbours a node has on average; N * mean_degree / 2 edges.
        mixing: share of the edges that leave their class.
        num_features: F, Gaussian around a random centre for each class.
        noise: standard deviation of a feature around its centre (centres have deviation 1).
        exponent: of the power law of expected degrees, above 2; larger is more even.
        seed: decides everything.
    """

    num_nodes: int = 1000
    num_classes: int = 7
    mean_degree: float = 8.0
    mixing: float = 0.2
    num_features: int = 32
    noise: float = 2.0
    exponent: float = 2.8
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "num_nodes must be 1 or more": self.num_nodes >= 1,
            "num_classes must be 1 or more": self.num_classes >= 1,
            "num_features must be 0 or more": self.num_features >= 0,
            "mean_degree must be 0 or more, and below num_nodes": 0
            <= self.mean_degree
            < self.num_nodes,
            "mixing must be between 0 and 1": 0 <= self.mixing <= 1,
            "noise must be 0 or more": self.noise >= 0,
            "exponent must be above 2": self.exponent > 2,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError(f"sbm: {'; '.join(broken)}; got {self}")


def block_model(model: BlockModel, schema: Schema | None = None) -> Graph:
    """Draw the graph; ids are row numbers, labels the planted classes. Memory is O(N F + M).

    Raises:
        ConfigError: the model is too dense to place its edges.

    Reference:
        Karrer and Newman, Phys. Rev. E 83, 2011; edges are drawn one by one until their number is
        met, without self loops or repeats.
    """
    rng = np.random.default_rng(model.seed)
    y = rng.integers(model.num_classes, size=model.num_nodes)
    propensity = (1 - rng.random(model.num_nodes)) ** (-1 / (model.exponent - 1))
    np.minimum(propensity, np.sqrt(model.num_nodes), out=propensity)
    centres = rng.standard_normal((model.num_classes, model.num_features), np.float32)
    x = rng.standard_normal((model.num_nodes, model.num_features), np.float32)
    x *= np.float32(model.noise)
    x += centres[y]
    declared = Schema(
        id_type="int",
        features=tuple(f"f{i}" for i in range(model.num_features)),
        classes=tuple(range(model.num_classes)),
        nominal_nodes=model.num_nodes,
    )
    return from_arrays(_draw_edges(model, y, propensity, rng), x, y, schema=schema or declared)


def _draw_edges(model: BlockModel, y: Array, propensity: Array, rng: np.random.Generator) -> Array:
    """``[2, M]`` int64 distinct pairs, smaller row first."""
    n, wanted = model.num_nodes, round(model.num_nodes * model.mean_degree / 2)
    order = np.argsort(y, kind="stable")  # nodes of one class are neighbours on the line
    ends = np.cumsum(propensity[order])
    bounds = np.concatenate([[0.0], ends])[np.searchsorted(y[order], np.arange(y.max() + 2))]
    pairs = np.empty(0, np.int64)
    for _ in range(_ROUNDS):
        missing = wanted - len(pairs)
        if missing <= 0:
            break
        size = missing + missing // 4 + 16
        src = order[_at(ends, rng.random(size) * ends[-1])]
        low, high = bounds[y[src]], bounds[y[src] + 1]
        leaves = (rng.random(size) < model.mixing) & (high - low < ends[-1])
        place = rng.random(size)
        inside = low + place * (high - low)
        outside = place * (ends[-1] - (high - low))
        outside += np.where(outside < low, 0.0, high - low)
        dst = order[_at(ends, np.where(leaves, outside, inside))]
        drawn = (np.minimum(src, dst) * n + np.maximum(src, dst))[src != dst]
        pairs = _distinct(np.concatenate([pairs, drawn]))[:wanted]
    if len(pairs) < wanted:
        raise ConfigError(
            f"sbm: only {len(pairs)} of {wanted} edges found a place; lower mean_degree or "
            "num_classes, or raise num_nodes or mixing"
        )
    return np.stack([pairs // n, pairs % n])


def _at(ends: Array, places: Array) -> Array:
    """Index of the interval that each place on the line falls into."""
    return np.minimum(np.searchsorted(ends, places, side="right"), len(ends) - 1)


def _distinct(values: Array) -> Array:
    """Distinct values in the order of their first occurrence."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]
