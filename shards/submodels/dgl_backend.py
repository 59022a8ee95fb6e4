"""GCN, SAGE, GIN and GAT on DGL: the parameters of the torch twins, messages passed by DGL.

The graph is built from the same sorted edges, weights included. A state dict fits either twin; the
outputs agree within float32 rounding, not bit for bit, so the backend is part of the recipe.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cluster.errors import ConfigError
from shards.submodels import layers
from shards.submodels.inputs import Features, ModelInput, OperatorKind
from shards.submodels.layers import Dropout, Submodel, activate, matrix, product, vector, widths


def _import_dgl() -> ModuleType:
    os.environ.setdefault("DGLBACKEND", "pytorch")  # else the import writes into the home folder
    try:
        import dgl
        import dgl.nn
    except (ImportError, OSError) as error:  # OSError: a DGL that does not fit this torch
        raise ConfigError(
            f"shards.backend 'dgl' cannot import DGL ({error}); on Python below 3.12 install DGL "
            '1.1.3 with packaging by `pip install "unweave[dgl]"`, or choose the backend torch'
        ) from error
    dgl.use_libxsmm(False)  # its kernels follow the processor, not the numerics profile
    module: ModuleType = dgl
    return module


dgl = _import_dgl()


class _Convolution:
    """Propagation by DGL's GraphConv without parameters: normalisation lies in the edge weights."""

    def __init__(self, inputs: ModelInput, kind: OperatorKind) -> None:
        source, target, weight = inputs.operator_edges(kind)
        ends = torch.from_numpy(source), torch.from_numpy(target)
        self.graph = dgl.graph(ends, num_nodes=inputs.num_nodes)
        self.weight = torch.from_numpy(weight)
        self.layer = dgl.nn.GraphConv(
            1, 1, norm="none", weight=False, bias=False, allow_zero_in_degree=True
        )

    def __matmul__(self, h: Tensor) -> Tensor:
        """Propagate: ``[n, d] -> [n, d]``."""
        result: Tensor = self.layer(self.graph, h, edge_weight=self.weight)
        return result


class _OnDgl(Submodel):
    """Passes messages by DGL."""

    def propagation(self, inputs: ModelInput, kind: OperatorKind) -> _Convolution:
        """DGL's convolution over this operator's edges (cached)."""
        return inputs.cached(f"dgl {kind}", lambda: _Convolution(inputs, kind))


class GCN(_OnDgl, layers.GCN):
    """GCN of the torch backend with DGL's message passing."""


class SAGE(_OnDgl, layers.SAGE):
    """SAGE of the torch backend with DGL's message passing.

    The mean lies in the edge weights, not in DGL's SAGEConv: at inference on a part of the graph a
    node's degree is that of the whole graph, which DGL cannot count.
    """


class GIN(_OnDgl, layers.GIN):
    """GIN of the torch backend with DGL's message passing."""


def _looped_graph(inputs: ModelInput) -> Any:
    source, target = inputs.looped_edges()
    return dgl.graph((source, target), num_nodes=inputs.num_nodes)


class GAT(Submodel):
    """Graph attention, one head (Velickovic et al. 2018, eq. 3), by DGL's edge softmax."""

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = layers
        sizes = widths(features, hidden, classes, layers)
        self.weights = nn.ParameterList([matrix(a, b) for a, b in sizes])
        self.convs = nn.ModuleList([_Attention(b) for _, b in sizes])

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        graph = inputs.cached("dgl looped", lambda: _looped_graph(inputs))
        h: Tensor | Features = inputs.features
        for i, conv in enumerate(self.convs):
            out: Tensor = conv(graph, product(h, self.weights[i]))
            h = activate(out, dropout) if i < self.hops - 1 else out
        assert isinstance(h, Tensor)
        return h


class _Attention(nn.Module):
    """Attention over in-neighbours of rows that are projected already.

    DGL's GATConv would bring a projection and names of its own; these are the names of the twin.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.att_src = nn.Parameter(torch.empty(1, 1, width))
        self.att_dst = nn.Parameter(torch.empty(1, 1, width))
        self.bias = vector(width)

    def forward(self, graph: Any, z: Tensor) -> Tensor:
        """``[n, d] -> [n, d]``."""
        source, target = (z * self.att_src[0]).sum(-1, True), (z * self.att_dst[0]).sum(-1, True)
        score = nn.functional.leaky_relu(dgl.ops.u_add_v(graph, source, target), 0.2)
        share = dgl.ops.edge_softmax(graph, score)
        mixed: Tensor = dgl.ops.u_mul_e_sum(graph, z, share)
        return mixed + self.bias
