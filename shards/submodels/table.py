"""The table of submodels: (backend, name) -> class, and what can be said without making one."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.errors import ConfigError
from shards.config import ShardsConfig

SUBMODELS: Mapping[tuple[str, str], str] = {
    ("torch", "gcn"): "shards.submodels.layers:GCN",
    ("torch", "sage"): "shards.submodels.layers:SAGE",
    ("torch", "gin"): "shards.submodels.layers:GIN",
    ("torch", "sgc"): "shards.submodels.layers:SGC",
    ("torch", "sign"): "shards.submodels.layers:SIGN",
    ("torch", "mlp"): "shards.submodels.layers:MLP",
    ("torch", "linear"): "shards.submodels.layers:Linear",
    ("torch", "gat"): "shards.submodels.attention:GAT",
    ("dgl", "gcn"): "shards.submodels.dgl_backend:GCN",
    ("dgl", "sage"): "shards.submodels.dgl_backend:SAGE",
    ("dgl", "gat"): "shards.submodels.dgl_backend:GAT",
    ("dgl", "gin"): "shards.submodels.dgl_backend:GIN",
}


def check_submodel(config: ShardsConfig) -> None:
    """Check that the table has this model on this backend, and the backend this device.

    Raises:
        ConfigError: names the choices.
    """
    if config.backend == "dgl" and config.device != "cpu":
        raise ConfigError(
            "shards.device 'cuda' needs shards.backend 'torch'; the packaged DGL runs on the CPU"
        )
    if (config.backend, config.model) not in SUBMODELS:
        choices = sorted(name for backend, name in SUBMODELS if backend == config.backend)
        raise ConfigError(
            f"shards.model is {config.model!r}; choose one of {choices} "
            f"with shards.backend {config.backend!r}"
        )


def receptive_field(config: ShardsConfig) -> int:
    """Message-passing steps a submodel reads; known without making one."""
    return 0 if config.model in ("mlp", "linear") else config.layers
