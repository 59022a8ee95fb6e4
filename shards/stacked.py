"""Answers of all submodels of a system on a few rows at once.

The submodels of one system have the same shapes, so their weights are stacked and every shard takes
part in the same products. A step of message passing is linear: it goes over the narrower side of
the product that it stands next to, and over features it is made once for all shards. Each layer is
computed on the rows alone that the next one reads, with degrees in the graph that counts.

Answers agree with :func:`shards.submodels.rowwise.row_posteriors` within float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from cluster.graph import Adjacency
from shards.config import ShardsConfig
from shards.content import incoming
from shards.submodels.inputs import ModelInput, OperatorKind
from shards.submodels.rowwise import BATCH_NORM_EPS, FEATURE_SCALE, LEAK, softmax

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]
StepKind = Literal[OperatorKind, "loops"]

_NORM = ("running_mean", "running_var", "weight", "bias")


class Stack:
    """Submodels of one system, their weights side by side.

    Attributes:
        config: settings of all of them.
        size: s, how many they are; silent shards are left out.
    """

    def __init__(self, config: ShardsConfig, weights: Sequence[Weights]) -> None:
        if not weights:
            raise ValueError("a stack needs the weights of one submodel at least")
        self.config, self.size = config, len(weights)
        self._weights = {
            name: np.stack([np.asarray(one[name], np.float32) for one in weights])
            for name in weights[0]
            if weights[0][name].ndim
        }

    def posteriors(self, inputs: ModelInput, targets: Array) -> Array:
        """Class probabilities of all submodels on some rows, ``[s, t, C]`` float32.

        Args:
            inputs: rows that hold the receptive field of the targets, such as the whole graph or
                a ball, with degrees in the whole graph.
            targets: ``[t]`` rows of ``inputs``.
        """
        logits = FORWARD[self.config.model](self, inputs, np.asarray(targets, np.int64))
        by_shard = np.ascontiguousarray(logits.transpose(1, 0, 2))
        return softmax(by_shard.reshape(-1, by_shard.shape[2])).reshape(by_shard.shape)

    def take(self, name: str) -> Array:
        """``[s, ...]`` a tensor of every submodel."""
        return self._weights[name]

    def product(self, h: Any, name: str) -> Array:
        """``[m, s, e]``: rows times a weight of every submodel.

        Args:
            h: ``[m, F]`` features that all shards share, dense or CSR, or ``[m, s, d]``.
            name: of the weight, ``[s, F or d, e]``.
        """
        weight = self._weights[name]
        if h.ndim == 2:
            size, inner, outer = weight.shape
            flat = np.ascontiguousarray(weight.transpose(1, 0, 2)).reshape(inner, size * outer)
            return np.asarray(_times(h, flat)).reshape(h.shape[0], size, outer)
        by_shard = torch.bmm(torch.from_numpy(h).transpose(0, 1), torch.from_numpy(weight))
        product: Array = by_shard.transpose(0, 1).contiguous().numpy()
        return product

    def stepped(self, step: Step, h: Any, name: str) -> Array:
        """``[t, s, e]``: a step of message passing and a product, over the narrower side."""
        weight = self._weights[name]
        width = h.shape[1] if h.ndim == 2 else h.shape[1] * h.shape[2]
        if width <= weight.shape[0] * weight.shape[2]:
            return self.product(step.over(h), name)
        mixed: Array = step.mix(self.product(step.read(h), name))
        return mixed


@dataclass(frozen=True, eq=False)
class Step:
    """A step of message passing into some rows.

    Attributes:
        rows: ``[t]`` rows it goes to.
        matrix: ``[t, n]`` weight of each row of the input.
        is_first: whether what it is applied to are the features of all n rows; otherwise they are
            those of ``sources``.
    """

    rows: Array
    matrix: sp.csr_matrix
    is_first: bool

    @cached_property
    def sources(self) -> Array:
        """``[m]`` rows it reads and those it goes to, ascending."""
        inside = np.zeros(self.matrix.shape[1], bool)
        inside[self.matrix.indices] = True
        inside[self.rows] = True
        return np.flatnonzero(inside)

    @cached_property
    def _place(self) -> Array:
        """Position of each of ``sources`` among them; the other entries are without meaning."""
        place = np.empty(self.matrix.shape[1], np.int64)
        place[self.sources] = np.arange(len(self.sources))
        return place

    @cached_property
    def compact(self) -> sp.csr_matrix:
        """``[t, m]`` the weights of ``sources``."""
        entries = (self.matrix.data, self._place[self.matrix.indices], self.matrix.indptr)
        return sp.csr_matrix(entries, shape=(len(self.rows), len(self.sources)))

    @property
    def at(self) -> Array:
        """``[t]`` position among ``sources`` of the rows that the step goes to."""
        found: Array = self._place[self.rows]
        return found

    def own(self, h: Any) -> Any:
        """What ``h`` says of the rows that the step goes to."""
        return h[self.rows] if self.is_first else h[self.at]

    def read(self, h: Any) -> Any:
        """What ``h`` says of ``sources``."""
        return h[self.sources] if self.is_first else h

    def over(self, h: Any) -> Any:
        """The step over ``h`` as it comes."""
        return self.matrix @ h if self.is_first else self.mix(h)

    def mix(self, h: Any) -> Any:
        """The step over what is known of ``sources``: ``[m, s, d]``, or ``[m, F]`` features."""
        if h.ndim == 2:
            return self.compact @ h
        mixed: Array = self.compact @ h.reshape(len(h), h.shape[1] * h.shape[2])
        return mixed.reshape(len(self.rows), *h.shape[1:])


def steps_to(inputs: ModelInput, kind: StepKind, targets: Array, count: int) -> list[Step]:
    """Steps that lead to the targets, in the order they are taken; each goes to what is read."""
    steps: list[Step] = []
    rows = targets
    for left in reversed(range(count)):
        steps.append(Step(rows, step_matrix(inputs, kind, rows), is_first=left == 0))
        if left:
            rows = steps[-1].sources
    return steps[::-1]


def step_matrix(inputs: ModelInput, kind: StepKind, rows: Array) -> sp.csr_matrix:
    """``[t, n]`` rows of an operator of :meth:`ModelInput.operator_edges`.

    ``loops`` is A + I; degrees are those of ``inputs``, wherever its edges end.
    """
    at, place = incoming(Adjacency(inputs.indptr, inputs.indices, inputs.weight), rows)
    column = inputs.indices[at]
    weight = np.ones(len(at), np.float32) if inputs.weight is None else inputs.weight[at]
    if kind in ("gcn", "loops"):
        own = np.arange(len(rows))
        place, column = np.concatenate([place, own]), np.concatenate([column, rows])
        weight = np.concatenate([weight, np.ones(len(rows), np.float32)])
    if kind == "gcn":
        ends = inputs.degree[column].astype(np.float64), inputs.degree[rows].astype(np.float64)
        weight = weight / np.sqrt((ends[0] + 1) * (ends[1] + 1)[place])
    elif kind == "mean":
        degree = inputs.degree[rows].astype(np.float64)
        weight = weight / np.where(degree > 0, degree, 1)[place]
    shape = (len(rows), inputs.num_nodes)
    return sp.csr_matrix((weight.astype(np.float32), (place, column)), shape=shape)


def _times(left: Any, right: Array) -> Array:
    """``left @ right`` in float32, ``left`` dense or CSR."""
    if sp.issparse(left):
        product: Array = left @ right
        return product
    return torch.mm(torch.from_numpy(np.ascontiguousarray(left)), torch.from_numpy(right)).numpy()


def _relu(h: Array) -> Array:
    return np.maximum(h, np.float32(0), out=h)


def _gcn(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    h, layers = inputs.x, stack.config.layers
    for i, step in enumerate(steps_to(inputs, "gcn", targets, layers)):
        h = stack.stepped(step, h, f"weights.{i}") + stack.take(f"biases.{i}")
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _sage(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    h, layers = inputs.x, stack.config.layers
    for i, step in enumerate(steps_to(inputs, "mean", targets, layers)):
        mean = stack.stepped(step, h, f"neighbour.{i}")
        h = mean + stack.product(step.own(h), f"root.{i}") + stack.take(f"biases.{i}")
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _gin(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    h, layers = inputs.x, stack.config.layers
    for i, step in enumerate(steps_to(inputs, "loops", targets, layers)):
        norm = {name: stack.take(f"norms.{i}.{name}") for name in _NORM}
        scale = norm["weight"] / np.sqrt(norm["running_var"] + np.float32(BATCH_NORM_EPS))
        z = stack.stepped(step, h, f"first.{i}") - norm["running_mean"]
        z = _relu(z * scale + norm["bias"])
        h = stack.product(z, f"second.{i}") + stack.take(f"biases.{i}")
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _sgc(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    h = inputs.x
    for step in steps_to(inputs, "gcn", targets, stack.config.layers):
        h = step.over(h)
    return stack.product(h, "weight") + stack.take("bias")


def _sign(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    powers = [inputs.x]  # S^i X on the rows that the next step reads
    for step in steps_to(inputs, "gcn", targets, stack.config.layers):
        powers = [step.own(powers[0]), *(step.over(power) for power in powers)]
    h = sum(stack.product(power, f"weights.{i}") for i, power in enumerate(powers))
    hidden = _relu(h + stack.take("bias"))
    return stack.product(hidden, "out") + stack.take("out_bias")


def _mlp(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    h, layers = inputs.x[targets], stack.config.layers
    for i in range(layers):
        h = stack.product(h, f"weights.{i}") + stack.take(f"biases.{i}")
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _linear(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    plain = stack.product(inputs.x[targets], "weight") + stack.take("bias")
    return np.asarray(plain * np.float32(FEATURE_SCALE))


def _gat(stack: Stack, inputs: ModelInput, targets: Array) -> Array:
    h, layers = inputs.x, stack.config.layers
    for i, step in enumerate(steps_to(inputs, "loops", targets, layers)):
        z = stack.product(step.read(h), f"weights.{i}")
        ends = [
            np.einsum("msd,sd->ms", z, stack.take(f"convs.{i}.{name}").reshape(stack.size, -1))
            for name in ("att_src", "att_dst")
        ]
        h = _attended(step, z, *ends) + stack.take(f"convs.{i}.bias")
        h = _relu(h) if i < layers - 1 else h
    return np.asarray(h)


def _attended(step: Step, z: Array, from_source: Array, from_target: Array) -> Array:
    """``[t, s, d]`` rows under attention over in-neighbours and the row itself.

    Args:
        step: whom each row listens to.
        z: ``[m, s, d]`` of its sources.
        from_source: ``[m, s]`` part of the score by who is heard.
        from_target: ``[m, s]`` part of the score by who listens.
    """
    compact = step.compact
    starts, counts = compact.indptr[:-1], np.diff(compact.indptr)
    score = from_source[compact.indices] + np.repeat(from_target[step.at], counts, axis=0)
    score = np.where(score > 0, score, np.float32(LEAK) * score)
    if not len(score):
        return np.zeros((0, *z.shape[1:]), np.float32)
    powers = np.exp(score - np.repeat(np.maximum.reduceat(score, starts), counts, axis=0))
    share = powers / np.repeat(np.add.reduceat(powers, starts), counts, axis=0)
    found = np.empty((len(step.rows), *z.shape[1:]), np.float32)
    for shard in range(z.shape[1]):
        entries = (np.ascontiguousarray(share[:, shard]), compact.indices, compact.indptr)
        found[:, shard] = sp.csr_matrix(entries, shape=compact.shape) @ z[:, shard]
    return found


FORWARD: Mapping[str, Callable[[Stack, ModelInput, Array], Array]] = {
    "gcn": _gcn,
    "sage": _sage,
    "gin": _gin,
    "sgc": _sgc,
    "sign": _sign,
    "mlp": _mlp,
    "linear": _linear,
    "gat": _gat,
}
