"""What a submodel computes on: features and message-passing operators as torch tensors.

Normalisation is done once, here: rows of X by their absolute sum, edges by degree. Sums run in
float64 and in canonical order, so no kernel level reaches them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from cluster.graph import Graph, in_degree
from shards.ball import Ball
from shards.config import Repair
from shards.content import ShardContent
from shards.phantoms import with_phantoms

Array = npt.NDArray[Any]
T = TypeVar("T")
OperatorKind = Literal["gcn", "mean", "sum"]


class Propagation(Protocol):
    """What passes the messages of one step: ``propagation @ h``, ``[n, d] -> [n, d]``."""

    def __matmul__(self, h: Tensor) -> Tensor:
        """Sum the weighted rows of the in-neighbours."""


@dataclass(eq=False)
class ModelInput:
    """Feature rows and in-neighbours of a set of nodes.

    Attributes:
        x: ``[n, F]`` row-normalised features, SciPy CSR or NumPy dense.
        indptr: ``[n + 1]`` int64 in-neighbours, sorted by (dst, src), no self loops.
        indices: ``[m]`` int64 source rows.
        weight: ``[m]`` float32 or None.
        degree: ``[n]`` float32 in-degree in the graph that counts (the content in training, the
            whole current graph at inference).
        symmetric: whether every edge has its reverse with the same weight.
        device: where tensors live.
        copies: (row, scale) of each row beyond those of ``x``, whose features are a multiple of
            that row's.
    """

    x: Any
    indptr: Array
    indices: Array
    weight: Array | None
    degree: Array
    symmetric: bool
    device: str = "cpu"
    copies: tuple[Array, Array] | None = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def num_nodes(self) -> int:
        """Number of rows, n."""
        return len(self.indptr) - 1

    def cached(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for this input."""
        if name not in self._cache:
            self._cache[name] = make()
        found: T = self._cache[name]
        return found

    @property
    def features(self) -> Features:
        """Features as tensors (cached)."""
        return self.cached("features", self._build_features)

    def operator(self, kind: OperatorKind) -> Operator:
        """Message-passing operator (cached)."""
        return self.cached(kind, lambda: self._build_operator(kind))

    def looped_edges(self) -> Tensor:
        """``[2, m + n]`` int64 (source, target) with self loops (cached)."""
        return self.cached("looped", self._build_looped_edges)

    def edge_weight(self) -> Array:
        """``[m]`` float32, ones for an unweighted graph."""
        if self.weight is None:
            return np.ones(len(self.indices), np.float32)
        return self.weight

    def edges(self) -> tuple[Array, Array]:
        """(source, target) rows of every edge, sorted by (target, source)."""
        return self.indices, np.repeat(np.arange(self.num_nodes), np.diff(self.indptr))

    def operator_edges(self, kind: OperatorKind) -> tuple[Array, Array, Array]:
        """(source, target, weight) of an operator's entries, sorted by (target, source).

        ``gcn``: D^-1/2 (A + I) D^-1/2 of Kipf & Welling 2017, eq. 2; ``mean``: D^-1 A; ``sum``: A.
        """
        if kind == "gcn":
            return self._gcn_edges()
        (source, target), weight = self.edges(), self.edge_weight()
        if kind == "mean":
            degree = self.degree.astype(np.float64)[target]
            weight = (weight / np.where(degree > 0, degree, 1)).astype(np.float32)
        return source, target, weight

    def _gcn_edges(self) -> tuple[Array, Array, Array]:
        source, target = self.edges()
        loop = np.arange(self.num_nodes)
        source, target = np.concatenate([source, loop]), np.concatenate([target, loop])
        weight = np.concatenate([self.edge_weight(), np.ones(self.num_nodes, np.float32)])
        scale = 1 / np.sqrt(self.degree.astype(np.float64) + 1)
        weight = (weight * (scale[source] * scale[target])).astype(np.float32)
        order = np.lexsort((source, target))
        return source[order], target[order], weight[order]

    def _build_features(self) -> Features:
        features = Features.from_matrix(self.x, self.device)
        if self.copies is not None:
            row, scale = (torch.from_numpy(part).to(self.device) for part in self.copies)
            features.copies = row, scale[:, None]
        return features

    def _build_operator(self, kind: OperatorKind) -> Operator:
        symmetric = self.symmetric and kind != "mean"
        edges = self.operator_edges(kind)
        return Operator.from_edges(*edges, self.num_nodes, symmetric, self.device)

    def _build_looped_edges(self) -> Tensor:
        source, target, _ = self.operator_edges("gcn")
        return torch.from_numpy(np.stack([source, target])).to(self.device)


class SparseMatrix:
    """A CSR matrix to multiply by; its transpose is made when a backward pass first needs it."""

    def __init__(self, matrix: Any, device: str, *, symmetric: bool = False) -> None:
        self._matrix, self._device, self._symmetric = matrix, device, symmetric
        self.tensor = csr_tensor(matrix, device)

    @cached_property
    def transpose(self) -> Tensor:
        """The transpose as a CSR tensor; a symmetric matrix is its own."""
        return self.tensor if self._symmetric else csr_tensor(self._matrix.T.tocsr(), self._device)

    def __matmul__(self, h: Tensor) -> Tensor:
        """``[n, m] @ [m, d] -> [n, d]``."""
        product: Tensor = _Product.apply(h, self)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """CSR product whose backward is one more CSR product, by the transpose."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        return matrix.tensor @ h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.transpose @ grads[0].contiguous(), None


class Operator:
    """Message passing as a sparse matrix, row = target; without edges it gives zeros."""

    def __init__(self, matrix: SparseMatrix | None) -> None:
        self._matrix = matrix

    @classmethod
    def from_edges(
        cls, source: Array, target: Array, weight: Array, size: int, symmetric: bool, device: str
    ) -> Operator:
        """Build from edges sorted by (target, source)."""
        if not len(source):
            return cls(None)
        matrix = sp.csr_matrix((weight, (target, source)), shape=(size, size))
        return cls(SparseMatrix(matrix, device, symmetric=symmetric))

    def __matmul__(self, h: Tensor) -> Tensor:
        """Propagate: ``[n, d] -> [n, d]``."""
        if self._matrix is None or h.shape[1] == 0:
            return h * 0  # a zero gradient, not none, so that weight decay acts all the same
        return self._matrix @ h


@dataclass(eq=False)
class Features:
    """A feature matrix that can be multiplied by weights, dense or sparse.

    Attributes:
        shape: (n, F), without copies.
        dense: the matrix, if it is dense.
        sparse: the matrix, if it is sparse and not empty.
        copies: (row, scale) of the rows after the n, multiples of one of them each.
    """

    shape: tuple[int, int]
    dense: Tensor | None = None
    sparse: SparseMatrix | None = None
    copies: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_matrix(cls, x: Any, device: str) -> Features:
        """Take a NumPy or SciPy matrix over."""
        if not sp.issparse(x):
            return cls(x.shape, dense=torch.from_numpy(np.ascontiguousarray(x)).to(device))
        return cls(x.shape, sparse=SparseMatrix(x, device) if x.nnz else None)

    def __matmul__(self, weight: Tensor) -> Tensor:
        """``[n, F] @ [F, d] -> [n, d]``, and after them the copies."""
        product = self._times(weight)
        if self.copies is None:
            return product
        row, scale = self.copies
        return torch.cat([product, product[row] * scale])

    def _times(self, weight: Tensor) -> Tensor:
        if self.dense is not None:
            return self.dense @ weight
        if self.sparse is None:
            return weight.new_zeros((self.shape[0], weight.shape[1])) + 0 * weight.sum()
        return self.sparse @ weight


def csr_tensor(matrix: Any, device: str) -> Tensor:
    """SciPy CSR to torch CSR with sorted indices."""
    matrix.sort_indices()
    return torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data.astype(np.float32)),
        size=matrix.shape,
        check_invariants=False,  # SciPy's arrays hold them
    ).to(device)


def normalise_rows(x: Any) -> Any:
    """Divide each row by its absolute sum; zero rows stay zero. Fitted on nothing."""
    if not sp.issparse(x):
        sums = np.add.accumulate(np.abs(x.astype(np.float64)), axis=1)[:, -1:] if x.size else 1.0
        return (x / np.where(sums > 0, sums, 1)).astype(np.float32)
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    sums = np.bincount(rows, weights=np.abs(x.data), minlength=x.shape[0])
    data = (x.data / sums[rows]).astype(np.float32)
    return sp.csr_matrix((data, x.indices, x.indptr), shape=x.shape)


def training_input(content: ShardContent, device: str, repair: Repair = "none") -> ModelInput:
    """Input for training: degrees count only records of the content, and its phantoms."""
    copies, (indptr, indices, weight) = None, (content.indptr, content.indices, content.weight)
    if repair != "none":
        anchor, scale, (indptr, indices, weight) = with_phantoms(content, repair)
        copies = anchor, scale
    return ModelInput(
        normalise_rows(content.x),
        indptr,
        indices,
        weight,
        in_degree(indptr, weight),
        symmetric=not content.schema.directed,
        device=device,
        copies=copies,
    )


def inference_input(graph: Graph, device: str, x: Any = None) -> ModelInput:
    """Input for inference: the full current graph; ``x`` are its features where they are known."""
    adjacency = graph.adjacency
    return ModelInput(
        normalise_rows(graph.x) if x is None else x,
        adjacency.indptr,
        adjacency.indices,
        adjacency.weight,
        adjacency.degree,
        symmetric=not graph.schema.directed,
        device=device,
    )


def ball_input(ball: Ball, device: str) -> ModelInput:
    """Input for one posterior block: the rows of a ball, with degrees in the whole graph."""
    indptr, indices, weight = ball.edges
    return ModelInput(
        normalise_rows(ball.graph.x[ball.rows]),
        indptr,
        indices,
        weight,
        ball.degree,
        symmetric=not ball.graph.schema.directed,
        device=device,
    )
