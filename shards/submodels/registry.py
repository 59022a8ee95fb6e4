"""The table of submodels, and the one function that makes a module from it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from cluster.errors import ConfigError
from cluster.schema import Schema
from shards.config import ShardsConfig
from shards.submodels.layers import Submodel

SUBMODELS: Mapping[tuple[str, str], str] = {
    ("torch", "gcn"): "shards.submodels.layers:GCN",
    ("torch", "sage"): "shards.submodels.layers:SAGE",
    ("torch", "gin"): "shards.submodels.layers:GIN",
    ("torch", "sgc"): "shards.submodels.layers:SGC",
    ("torch", "sign"): "shards.submodels.layers:SIGN",
    ("torch", "mlp"): "shards.submodels.layers:MLP",
    ("torch", "gat"): "shards.submodels.attention:GAT",
    ("dgl", "gcn"): "shards.submodels.dgl_backend:GCN",
    ("dgl", "sage"): "shards.submodels.dgl_backend:SAGE",
    ("dgl", "gat"): "shards.submodels.dgl_backend:GAT",
    ("dgl", "gin"): "shards.submodels.dgl_backend:GIN",
}


def check_submodel(config: ShardsConfig) -> None:
    """Check that the table has this model on this backend.

    Raises:
        ConfigError: names the choices.
    """
    if (config.backend, config.model) not in SUBMODELS:
        choices = sorted(name for backend, name in SUBMODELS if backend == config.backend)
        raise ConfigError(
            f"shards.model is {config.model!r}; choose one of {choices} "
            f"with shards.backend {config.backend!r}"
        )


def make_submodel(config: ShardsConfig, schema: Schema) -> Submodel:
    """A fresh module with initial weights drawn from torch's current generator."""
    check_submodel(config)
    module, _, name = SUBMODELS[config.backend, config.model].partition(":")
    make: type[Submodel] = getattr(import_module(module), name)
    return make(schema.num_features, config.hidden, schema.num_classes, config.layers)  # type: ignore[call-arg]
