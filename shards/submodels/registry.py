"""Modules made from the table of submodels: fresh, or with stored weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy.typing as npt
import torch

from cluster.schema import Schema
from shards.config import ShardsConfig
from shards.submodels.layers import Submodel
from shards.submodels.table import SUBMODELS, check_submodel


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
