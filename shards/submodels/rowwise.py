"""Inference whose bits for one row do not depend on which other rows are asked with it.

A library's matrix product picks its kernel by shape, so a row gets other bits in another batch.
Here every product is SciPy's product of a CSR matrix, which adds up each row by itself in canonical
order, and everything else is elementwise. Answers can therefore be kept row by row: an erasure
computes those it moved, and they are the bits that a computation from nothing gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from shards.config import ShardsConfig
from shards.submodels.inputs import ModelInput, OperatorKind

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]

BATCH_NORM_EPS = 1e-5  # of torch.nn.BatchNorm1d
FEATURE_SCALE = 10.0  # of the linear model: its rows add up to 1, so a step moves logits little
LEAK = 0.2  # slope of the attention scores below zero


def row_posteriors(weights: Weights, config: ShardsConfig, inputs: ModelInput) -> Array:
    """Class probabilities of every row of ``inputs``, ``[n, C]`` float32.

    Args:
        weights: state dict of a submodel of either backend.
        config: its settings.
        inputs: a ball that holds the receptive field of the rows that are wanted.
    """
    return softmax(FORWARD[config.model](weights, config.layers, inputs))


def softmax(logits: Array) -> Array:
    """Row-wise softmax, ``[n, C]`` float32, columns added in order."""
    powers = _exp(logits - logits.max(axis=1, keepdims=True))
    return powers / np.add.accumulate(powers, axis=1)[:, -1:]


def times(left: Any, right: Array) -> Array:
    """``left @ right`` in float32, each row by itself; ``left`` is dense or CSR."""
    product: Array = sp.csr_matrix(left) @ np.ascontiguousarray(right)
    return product


def _exp(values: Array) -> Array:
    """Elementwise exponential at the profile's kernel level."""
    result: Array = torch.from_numpy(np.ascontiguousarray(values)).exp().numpy()
    return result


def operator(inputs: ModelInput, kind: OperatorKind) -> sp.csr_matrix:
    """A message-passing operator as a CSR matrix, row = target (made once for an input)."""
    return inputs.cached(f"rowwise {kind}", lambda: _operator(inputs, kind))


def _operator(inputs: ModelInput, kind: OperatorKind) -> sp.csr_matrix:
    source, target, weight = inputs.operator_edges(kind)
    size = inputs.num_nodes
    return sp.csr_matrix((weight, (target, source)), shape=(size, size))


def _relu(h: Array) -> Array:
    return np.maximum(h, np.float32(0))


def _gcn(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    step, h = operator(inputs, "gcn"), inputs.x
    for i in range(layers):
        h = times(step, times(h, weights[f"weights.{i}"])) + weights[f"biases.{i}"]
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _sage(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    step, h = operator(inputs, "mean"), inputs.x
    for i in range(layers):
        mean = times(step, times(h, weights[f"neighbour.{i}"]))
        h = mean + times(h, weights[f"root.{i}"]) + weights[f"biases.{i}"]
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _gin(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    step, h = operator(inputs, "sum"), inputs.x
    for i in range(layers):
        z = times(h, weights[f"first.{i}"])
        z = z + times(step, z)
        scale = 1 / np.sqrt(weights[f"norms.{i}.running_var"] + np.float32(BATCH_NORM_EPS))
        z = (z - weights[f"norms.{i}.running_mean"]) * scale
        z = _relu(z * weights[f"norms.{i}.weight"] + weights[f"norms.{i}.bias"])
        h = times(z, weights[f"second.{i}"]) + weights[f"biases.{i}"]
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _sgc(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    step, h = operator(inputs, "gcn"), times(inputs.x, weights["weight"])
    for _ in range(layers):
        h = times(step, h)
    return np.asarray(h + weights["bias"])


def _sign(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    step = operator(inputs, "gcn")
    h = times(inputs.x, weights[f"weights.{layers}"])
    for i in reversed(range(layers)):
        h = times(step, h) + times(inputs.x, weights[f"weights.{i}"])
    return np.asarray(times(_relu(h + weights["bias"]), weights["out"]) + weights["out_bias"])


def _mlp(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    h = inputs.x
    for i in range(layers):
        h = times(h, weights[f"weights.{i}"]) + weights[f"biases.{i}"]
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _linear(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    plain = times(inputs.x, weights["weight"]) + weights["bias"]
    return np.asarray(plain * np.float32(FEATURE_SCALE))


def _gat(weights: Weights, layers: int, inputs: ModelInput) -> Array:
    h = inputs.x
    for i in range(layers):
        z = times(h, weights[f"weights.{i}"])
        from_source = times(z, weights[f"convs.{i}.att_src"].reshape(-1, 1))[:, 0]
        from_target = times(z, weights[f"convs.{i}.att_dst"].reshape(-1, 1))[:, 0]
        h = times(_attention(inputs, from_source, from_target), z) + weights[f"convs.{i}.bias"]
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _attention(inputs: ModelInput, from_source: Array, from_target: Array) -> sp.csr_matrix:
    """Shares of attention over the in-neighbours of each row and the row itself."""
    source, target, _ = inputs.operator_edges("gcn")
    score = from_source[source] + from_target[target]
    score = np.where(score > 0, score, np.float32(LEAK) * score)
    starts = np.searchsorted(target, np.arange(inputs.num_nodes))  # a row has its own loop
    powers = _exp(score - np.maximum.reduceat(score, starts)[target])
    total = np.bincount(target, weights=powers, minlength=inputs.num_nodes)
    share = (powers / total[target]).astype(np.float32)
    return sp.csr_matrix((share, (target, source)), shape=(inputs.num_nodes, inputs.num_nodes))


FORWARD: Mapping[str, Callable[[Weights, int, ModelInput], Array]] = {
    "gcn": _gcn,
    "sage": _sage,
    "gin": _gin,
    "sgc": _sgc,
    "sign": _sign,
    "mlp": _mlp,
    "linear": _linear,
    "gat": _gat,
}
