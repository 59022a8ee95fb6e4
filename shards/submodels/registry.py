"""The table of submodels, and the one function that makes a module from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy.typing as npt
import torch

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


def make_submodel(config: ShardsConfig, schema: Schema, seed: int) -> Submodel:
    """A fresh module whose initial weights come from a generator seeded here."""
    model = _blank(config, schema)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.to(config.device)


def restore_submodel(
    config: ShardsConfig, schema: Schema, weights: Mapping[str, npt.NDArray[Any]]
) -> Submodel:
    """A module with the weights of a state dict."""
    model = _blank(config, schema)
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model.to(config.device)


def _blank(config: ShardsConfig, schema: Schema) -> Submodel:
    """A module of the right shapes, its weights not set.

    It is laid out on the meta device, since library layers draw from torch's global generator.
    """
    check_submodel(config)
    module, _, name = SUBMODELS[config.backend, config.model].partition(":")
    make: Callable[..., Submodel] = getattr(import_module(module), name)
    shape = (schema.num_features, config.hidden, schema.num_classes, config.layers)
    with torch.device("meta"):
        model = make(*shape)
    return model.to_empty(device="cpu")


def receptive_field(config: ShardsConfig) -> int:
    """Message-passing steps a submodel reads; known without making one."""
    return 0 if config.model == "mlp" else config.layers
