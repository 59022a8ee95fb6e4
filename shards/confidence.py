"""How sure a submodel is of the true labels of some nodes; what the audits are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.config import ShardsConfig
from shards.jobs import Questions
from shards.submodels.inputs import ModelInput, normalise_rows
from shards.submodels.rowwise import FORWARD

Array = npt.NDArray[Any]


def log_odds(weights: Mapping[str, Array], config: ShardsConfig, asked: Questions) -> Array:
    """``[q]`` float64 log p(y) - log(1 - p(y)) of the true label y of every node asked about.

    Taken from the logits, so that it does not saturate where p(y) rounds to one.

    Reference:
        Carlini et al., IEEE S&P 2022, section IV-A, the logit-scaled confidence.
    """
    inputs = ModelInput(
        normalise_rows(asked.x), *asked.edges, degree=asked.degree, symmetric=asked.symmetric
    )
    logits = FORWARD[config.model](weights, config.layers, inputs)[asked.targets]
    return margins(logits.astype(np.float64), asked.labels)


def margins(logits: Array, labels: Array) -> Array:
    """``[q]`` logit of the label less the log-sum-exp of the others; 0 with a single class."""
    if logits.shape[1] == 1:
        return np.zeros(len(labels))
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return np.asarray(logits[rows, labels] - np.logaddexp.reduce(others, axis=1))
