"""Generations with random weights, made without training, and masks on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cluster.digest import digest
from cluster.graph import Graph, Located
from coordinator.aggregators.base import AggregatorState
from coordinator.config import Config, load_config
from coordinator.serving.published import Published
from shards.ridge import RidgeSpec, own_features
from shards.stacked import Stack
from shards.stacking import EXPERTS, GATE_PRIOR
from shards.submodels.registry import make_submodel

Array = npt.NDArray[Any]

DESIGNS: Mapping[str, Mapping[str, Any]] = {
    "linear, learned": {},
    "gcn, learned": {"shards.model": "gcn"},
    "gcn, gate": {"shards.model": "gcn", "aggregator.kind": "gate"},
    "gcn, mean, correct and smooth": {
        "shards.model": "gcn",
        "aggregator.kind": "mean",
        "aggregator.label_step": "correct_and_smooth",
        "aggregator.label_steps": 2,
    },
    "sage, majority, propagate": {
        "shards.model": "sage",
        "aggregator.kind": "majority",
        "aggregator.label_step": "propagate",
        "aggregator.label_steps": 2,
    },
    "mlp, mean": {"shards.model": "mlp", "aggregator.kind": "mean"},
    "mlp, gate": {"shards.model": "mlp", "aggregator.kind": "gate"},
    "linear, optimal": {"aggregator.kind": "optimal"},
    "linear, merge": {"aggregator.kind": "merge"},
}


def config_of(design: str) -> Config:
    """A small configuration of a design; two thirds of the nodes are for training."""
    sizes = {"shards.hidden": 4, "aggregator.ridge_width": 16, "roles.train": 0.7, "roles.val": 0.1}
    return load_config(None, {**sizes, **DESIGNS[design]})


def publish(graph: Graph, config: Config, num_shards: int = 3, number: int = 1) -> Published:
    """A generation whose weights are drawn, not trained; shards own training rows in turn."""
    rng = np.random.default_rng(7)
    train = graph.roles(config.roles) == 0
    owner = np.where(train, np.arange(graph.num_nodes) % num_shards, -1).astype(np.int32)
    weights = []
    for shard in range(num_shards):
        model = make_submodel(config.shards, graph.schema, shard)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.from_numpy(rng.normal(0, 0.5, parameter.shape)).float()
        weights.append({name: t.detach().numpy() for name, t in model.state_dict().items()})
    state = AggregatorState(digest("drawn"), _fitted(graph, config, num_shards, rng))
    shards = tuple(range(num_shards))
    return Published(number, graph, owner, shards, Stack(config.shards, weights), state, config)


def _fitted(
    graph: Graph, config: Config, num_shards: int, rng: np.random.Generator
) -> dict[str, Array]:
    kind = config.aggregator.kind
    if kind == "optimal":
        return {"weights": rng.dirichlet(np.ones(num_shards))}
    if kind not in ("learned", "merge"):
        return {}
    spec = RidgeSpec(config.aggregator.ridge_width, config.seed)
    width = 2 * own_features(graph, np.arange(1), spec).shape[1] + 1
    head = rng.normal(0, 0.3, (width, graph.schema.num_classes)).astype(np.float32)
    tensors = {"weights": head, "ridge": np.asarray([0.1])}
    if kind == "merge":
        return tensors
    gate = np.asarray(GATE_PRIOR) + rng.normal(0, 0.3, len(GATE_PRIOR))
    return tensors | {"gate": gate, "stack": rng.normal(0.3, 0.1, (len(EXPERTS), 3))}


def hiding(
    *,
    nodes: Any = (),
    edges: Any = (),
    cells: Any = ((), ()),
    labels: Any = (),
) -> Located:
    """A mask by row numbers."""

    def rows(values: Any) -> Array:
        return np.asarray(values, np.int64)

    return Located(rows(nodes), rows(edges), (rows(cells[0]), rows(cells[1])), rows(labels))
