"""GAT on PyG's layer, over edges sorted by (dst, src) with one self loop each."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import GATConv

from shards.submodels.inputs import Features, ModelInput
from shards.submodels.layers import Dropout, Submodel, activate, matrix, product, widths


class GAT(Submodel):
    """Graph attention, one head: attention over in-neighbours (Velickovic et al. 2018, eq. 3).

    Our product projects the rows, so that sparse features stay sparse; PyG's layer does the
    attention on them, its own projection replaced by the identity.
    """

    def __init__(self, features: int, hidden: int, classes: int, layers: int) -> None:
        super().__init__()
        self.hops = layers
        sizes = widths(features, hidden, classes, layers)
        self.weights = nn.ParameterList([matrix(a, b) for a, b in sizes])
        self.convs = nn.ModuleList([GATConv(b, b, heads=1, add_self_loops=False) for _, b in sizes])
        for conv in self.convs:
            conv.lin = nn.Identity()

    def forward(self, inputs: ModelInput, dropout: Dropout | None) -> Tensor:
        """Logits of every row."""
        edge_index = inputs.looped_edges()
        h: Tensor | Features = inputs.features
        for i, conv in enumerate(self.convs):
            out: Tensor = conv(product(h, self.weights[i]), edge_index)
            h = activate(out, dropout) if i < self.hops - 1 else out
        assert isinstance(h, Tensor)
        return h
