"""The submodels on our own propagation: GCN, SAGE, GIN, SGC, SIGN, MLP, Linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from shards.submodels.inputs import Features, ModelInput, OperatorKind, Propagation
from shards.submodels.rowwise import FEATURE_SCALE


class Dropout:
    """Dropout whose masks come from one explicit generator; the rate is a multiple of 1/256."""

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        self.threshold, self.generator = min(round(rate * 256), 255), generator

    def __call__(self, h: Tensor) -> Tensor:
        """Zero each entry with the rate and scale the others up."""
        if not self.threshold:
            return h
        words = (h.numel() + 7) // 8
        raw = torch.empty(words, dtype=torch.int64, device=h.device)
        raw.random_(-(2**63), None, generator=self.generator)
        bytes_ = raw.view(torch.uint8)[: h.numel()].view(h.shape)
        return h * (bytes_ >= self.threshold).to(h.dtype) * (256 / (256 - self.threshold))


class Submodel(nn.Module):
    """A node classifier: ``forward(inputs, dropout)`` gives ``[n, C]`` logits.

    Attributes:
        hops: receptive field in message-passing steps.
    """

    hops: int

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row; ``dropout`` is None at inference."""
        raise TypeError(f"{type(self).__name__} has no forward pass")

    def propagation(self, inputs: ModelInput, kind: OperatorKind) -> Propagation:
        """What passes this model's messages; another backend replaces it."""
        return inputs.operator(kind)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights, in the order of the modules, from this generator alone.

        Weights are Glorot-uniform over their last two sizes (Glorot & Bengio 2010, eq. 16),
        biases zero, batch norms the identity.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.reset_parameters()
                continue
            for parameter in module.parameters(recurse=False):
                if parameter.dim() == 1:
                    parameter.zero_()
                else:
                    bound = math.sqrt(6 / sum(parameter.shape[-2:]))
                    parameter.uniform_(-bound, bound, generator=generator)


def matrix(rows: int, columns: int) -> nn.Parameter:
    """A weight ``[rows, columns]``, to be drawn."""
    return nn.Parameter(torch.empty(rows, columns))


def vector(size: int) -> nn.Parameter:
    """A bias ``[size]``, to be drawn."""
    return nn.Parameter(torch.empty(size))


def widths(features: int, hidden: int, classes: int, layers: int) -> list[tuple[int, int]]:
    """(input, output) width of each layer."""
    sizes = [features, *[hidden] * (layers - 1), classes]
    return list(pairwise(sizes))


def product(h: Tensor | Features, weight: Tensor) -> Tensor:
    """``h @ weight`` for hidden rows or for the features."""
    return h @ weight


class GCN(Submodel):
    """Graph convolution: H' = norm(A + I) H W + b (Kipf & Welling 2017, eq. 2)."""

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = layers
        sizes = widths(features, hidden, classes, layers)
        self.weights = nn.ParameterList([matrix(a, b) for a, b in sizes])
        self.biases = nn.ParameterList([vector(b) for _, b in sizes])

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        operator = self.propagation(inputs, "gcn")
        h: Tensor | Features = inputs.features
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out: Tensor = operator @ product(h, weight) + bias
            h = activate(out, dropout) if i < self.hops - 1 else out
        assert isinstance(h, Tensor)
        return h


class SAGE(Submodel):
    """GraphSAGE with mean aggregation: H' = mean(H) W_n + H W_s + b (Hamilton et al. 2017)."""

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = layers
        sizes = widths(features, hidden, classes, layers)
        self.neighbour = nn.ParameterList([matrix(a, b) for a, b in sizes])
        self.root = nn.ParameterList([matrix(a, b) for a, b in sizes])
        self.biases = nn.ParameterList([vector(b) for _, b in sizes])

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        operator = self.propagation(inputs, "mean")
        h: Tensor | Features = inputs.features
        for i in range(self.hops):
            mean = operator @ product(h, self.neighbour[i])
            out: Tensor = mean + product(h, self.root[i]) + self.biases[i]
            h = activate(out, dropout) if i < self.hops - 1 else out
        assert isinstance(h, Tensor)
        return h


class GIN(Submodel):
    """Graph isomorphism network, epsilon 0: H' = MLP(H + sum(H)) (Xu et al. 2019, eq. 4.1).

    The MLP is linear, batch norm, ReLU, linear. A batch norm over a single row has no variance:
    there it uses its running statistics, as at inference.
    """

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = layers
        sizes = widths(features, hidden, classes, layers)
        self.first = nn.ParameterList([matrix(a, hidden) for a, _ in sizes])
        self.norms = nn.ModuleList([nn.BatchNorm1d(hidden) for _ in sizes])
        self.second = nn.ParameterList([matrix(hidden, b) for _, b in sizes])
        self.biases = nn.ParameterList([vector(b) for _, b in sizes])

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        operator = self.propagation(inputs, "sum")
        h: Tensor | Features = inputs.features
        for i in range(self.hops):
            z = product(h, self.first[i])
            z = self._normalise(i, z + operator @ z).relu()
            out: Tensor = z @ self.second[i] + self.biases[i]
            h = activate(out, dropout) if i < self.hops - 1 else out
        assert isinstance(h, Tensor)
        return h

    def _normalise(self, layer: int, z: Tensor) -> Tensor:
        norm = self.norms[layer]
        assert isinstance(norm, nn.BatchNorm1d)
        return nn.functional.batch_norm(
            z,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=self.training and len(z) > 1,
            momentum=0.1,
            eps=norm.eps,
        )


class SGC(Submodel):
    """Simple graph convolution: logits = norm(A + I)^K X W + b (Wu et al. 2019, eq. 8)."""

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = layers
        self.weight = matrix(features, classes)
        self.bias = vector(classes)

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        operator = self.propagation(inputs, "gcn")
        h = product(inputs.features, self.weight)
        for _ in range(self.hops):
            h = operator @ h
        return h + self.bias


class SIGN(Submodel):
    """An MLP on [X, SX, ..., S^K X], one weight a power (SIGN, Frasca et al. 2020)."""

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = layers
        self.weights = nn.ParameterList([matrix(features, hidden) for _ in range(layers + 1)])
        self.bias = vector(hidden)
        self.out = matrix(hidden, classes)
        self.out_bias = vector(classes)

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row; S^K (X W) is computed as Horner's scheme over the powers."""
        operator = self.propagation(inputs, "gcn")
        weights: Sequence[Tensor] = list(self.weights)
        h = product(inputs.features, weights[-1])
        for weight in reversed(weights[:-1]):
            h = operator @ h + product(inputs.features, weight)
        return activate(h + self.bias, dropout) @ self.out + self.out_bias


class MLP(Submodel):
    """A perceptron on the features alone; reads no edge."""

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = 0
        sizes = widths(features, hidden, classes, layers)
        self.weights = nn.ParameterList([matrix(a, b) for a, b in sizes])
        self.biases = nn.ParameterList([vector(b) for _, b in sizes])

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        h: Tensor | Features = inputs.features
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out: Tensor = product(h, weight) + bias
            h = activate(out, dropout) if i < len(self.weights) - 1 else out
        assert isinstance(h, Tensor)
        return h


class Linear(Submodel):
    """Softmax regression on the features alone: ``FEATURE_SCALE (X W + b)``; reads no edge.

    It has no hidden layer and nothing to drop; ``hidden``, ``layers`` and ``dropout`` do nothing.
    """

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = 0
        self.weight, self.bias = matrix(features, classes), vector(classes)

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        return (product(inputs.features, self.weight) + self.bias) * FEATURE_SCALE


def activate(h: Tensor, dropout: Dropout | None) -> Tensor:
    """ReLU, then dropout while training."""
    h = h.relu()
    return h if dropout is None else dropout(h)
