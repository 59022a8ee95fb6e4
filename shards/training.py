"""``train(content, recipe, seed)``: the pure function that everything rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cluster.digest import Digest, derive_seed, tensors_digest
from cluster.graph import UNLABELLED
from shards.content import ShardContent
from shards.recipe import Recipe, require_profile
from shards.submodels.inputs import ModelInput, training_input
from shards.submodels.layers import Dropout, Submodel
from shards.submodels.registry import make_submodel

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trained:
    """Result of one training.

    Attributes:
        weights: state dict as NumPy arrays.
        losses: training loss of every training epoch.
    """

    weights: Weights
    losses: tuple[float, ...]

    @property
    def digest(self) -> Digest:
        """Digest of the weights alone."""
        return tensors_digest(self.weights)


def train(content: ShardContent, recipe: Recipe, seed: int) -> Trained:
    """Train one submodel on one shard, full batch, from fresh initial weights.

    The result depends on the three arguments alone: initial weights and dropout masks come from
    generators made here, torch's global generator is neither read nor moved, and nothing is
    carried over.

    Args:
        content: what the training reads; it must not be silent.
        recipe: model, training settings, numerics profile.
        seed: seed of this shard's training.

    Raises:
        NumericsError: this process cannot reproduce the recipe's profile.
        ValueError: the content is silent (no owned row has a label).
    """
    if content.is_silent:
        raise ValueError("a silent shard has nothing to train on; the caller leaves it out")
    require_profile(recipe.profile)
    device = recipe.config.device
    inputs = training_input(content, device, recipe.config.repair)
    rows = torch.from_numpy(np.flatnonzero(content.owned & (content.y != UNLABELLED))).to(device)
    targets = torch.from_numpy(content.y.astype(np.int64)).to(device)[rows]
    model = make_submodel(recipe.config, content.schema, derive_seed(seed, "weights"))
    losses = _fit(model, inputs, rows, targets, recipe, derive_seed(seed, "dropout"))
    weights = {name: tensor.cpu().numpy().copy() for name, tensor in model.state_dict().items()}
    return Trained(weights, losses)


def _fit(
    model: Submodel,
    inputs: ModelInput,
    rows: torch.Tensor,
    targets: torch.Tensor,
    recipe: Recipe,
    seed: int,
) -> tuple[float, ...]:
    config = recipe.config
    dropout = Dropout(config.dropout, torch.Generator(config.device).manual_seed(seed))
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    losses = []
    model.train()
    for _ in range(config.training_epochs):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs, dropout)[rows], targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return tuple(torch.stack(losses).tolist())


@torch.no_grad()
def posteriors(model: Submodel, inputs: ModelInput) -> Array:
    """Class probabilities of every row of ``inputs``, ``[n, C]`` float32."""
    model.eval()
    result: Array = model(inputs, None).softmax(dim=1).cpu().numpy()
    return result
