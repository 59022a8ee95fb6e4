"""``train(content, recipe, seed)``: the pure function that everything rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cluster.digest import Digest, derive_seed, tensors_digest
from cluster.graph import UNLABELLED
from cluster.store import Blob
from shards.content import ShardContent
from shards.recipe import Recipe, require_profile
from shards.slices import slice_epochs
from shards.submodels.inputs import ModelInput, training_input
from shards.submodels.layers import Dropout, Submodel
from shards.submodels.registry import make_submodel, restore_submodel

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]


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


@dataclass(frozen=True)
class SliceState(Trained):
    """Where a training stands after a slice: all that the next one continues from.

    Attributes:
        weights: state dict as NumPy arrays, running statistics included.
        losses: training loss of every epoch so far.
        moments: Adam's state as NumPy arrays, named ``PARAMETER/ENTRY`` with the entries ``step``,
            ``exp_avg`` and ``exp_avg_sq``.
    """

    moments: Weights = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Array]:
        """Weights and moments in one name space."""
        named = {f"weights/{name}": array for name, array in self.weights.items()}
        return named | {f"moments/{name}": array for name, array in self.moments.items()}

    @property
    def digest(self) -> Digest:
        """Digest of weights and moments."""
        return tensors_digest(self.tensors)

    def to_blob(self) -> Blob:
        """As an artefact."""
        return Blob(self.tensors, {"losses": list(self.losses)})

    @classmethod
    def from_blob(cls, blob: Blob) -> SliceState:
        """Inverse of :meth:`to_blob`."""
        parts: dict[str, dict[str, Array]] = {"weights": {}, "moments": {}}
        for name, array in blob.tensors.items():
            part, _, of = name.partition("/")
            parts[part][of] = array
        return cls(parts["weights"], tuple(blob.meta["losses"]), parts["moments"])


Keep = Callable[[int, SliceState], None]


def train(content: ShardContent, recipe: Recipe, seed: int) -> Trained:
    """Train one submodel on one shard, full batch, from fresh initial weights.

    The result depends on the three arguments alone: initial weights and dropout masks come from
    generators made here, torch's global generator is neither read nor moved, and nothing is
    carried over. With ``slices`` above 1 it runs the whole chain of slices.

    Args:
        content: what the training reads; it must not be silent.
        recipe: model, training settings, numerics profile.
        seed: seed of this shard's training.

    Raises:
        NumericsError: this process cannot reproduce the recipe's profile.
        ValueError: the content is silent (no owned row has a label).
    """
    return train_slices(content, recipe, seed)


def train_slices(
    content: ShardContent,
    recipe: Recipe,
    seed: int,
    reached: tuple[int, SliceState | None] = (0, None),
    keep: Keep | None = None,
) -> Trained:
    """Train slice after slice, each on the content restricted to its and the earlier slices.

    Resuming from a state that the same chain reached gives the bits of the whole chain.

    Args:
        content: as in :func:`train`.
        recipe: as in :func:`train`; ``recipe.config.slices`` is R.
        seed: as in :func:`train`.
        reached: number of the last slice that is done, and the state it left.
        keep: called with the number and state of every slice trained here but the last.

    Reference:
        Bourtoule et al., IEEE S&P 2021, section IV. Deviations: a row's slice is a keyed hash of
        its id, so slices differ a little in size and no row moves another; Adam's moments are part
        of the checkpoint; every slice draws its dropout masks from a seed of its own; slices before
        the first label train nothing and leave no checkpoint.
    """
    if content.is_silent:
        raise ValueError("a silent shard has nothing to train on; the caller leaves it out")
    require_profile(recipe.profile)
    last, (done, state) = recipe.config.slices, reached
    for number in range(done + 1, last + 1):
        prefix = content.prefix(number, last)
        if prefix.is_silent:
            continue
        state = _train_slice(prefix, recipe, seed, number, state)
        if keep and number < last:
            keep(number, state)
    assert state is not None  # the last prefix is the content itself
    return Trained(state.weights, state.losses)


def _train_slice(
    content: ShardContent, recipe: Recipe, seed: int, number: int, state: SliceState | None
) -> SliceState:
    """Continue on one slice's prefix, from fresh weights where there is no state."""
    config = recipe.config
    if state is None:
        model = make_submodel(config, content.schema, derive_seed(seed, "weights"))
    else:
        model = restore_submodel(config, content.schema, state.weights)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    if state is not None:
        _restore_moments(model, optimizer, state.moments)
    path = ("dropout",) if config.slices == 1 else ("dropout", number)
    generator = torch.Generator(config.device).manual_seed(derive_seed(seed, *path))
    epochs = slice_epochs(config)[number - 1]
    inputs = training_input(content, config.device, config.repair)
    losses = _fit(model, optimizer, content, inputs, epochs, Dropout(config.dropout, generator))
    weights = {name: _array(tensor) for name, tensor in model.state_dict().items()}
    earlier = () if state is None else state.losses
    return SliceState(weights, earlier + losses, _moments(model, optimizer))


def _fit(
    model: Submodel,
    optimizer: torch.optim.Adam,
    content: ShardContent,
    inputs: ModelInput,
    epochs: int,
    dropout: Dropout,
) -> tuple[float, ...]:
    """Full-batch training epochs, in place; the loss of each."""
    device = dropout.generator.device
    rows = torch.from_numpy(np.flatnonzero(content.owned & (content.y != UNLABELLED))).to(device)
    targets = torch.from_numpy(content.y.astype(np.int64)).to(device)[rows]
    losses = []
    model.train()
    for _ in range(epochs):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs, dropout)[rows], targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return tuple(torch.stack(losses).tolist())


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.cpu().numpy().copy()
    return array


def _moments(model: Submodel, optimizer: torch.optim.Adam) -> dict[str, Array]:
    return {
        f"{name}/{entry}": _array(tensor)
        for name, parameter in model.named_parameters()
        for entry, tensor in optimizer.state[parameter].items()
    }


def _restore_moments(model: Submodel, optimizer: torch.optim.Adam, moments: Weights) -> None:
    """Give Adam the state it had; a store returns the scalar ``step`` with one dimension."""
    parameters = dict(model.named_parameters())
    for name, array in moments.items():
        of, entry = name.rsplit("/", 1)
        shape = () if entry == "step" else parameters[of].shape
        tensor = torch.tensor(array).reshape(shape).to(parameters[of].device)
        optimizer.state[parameters[of]][entry] = tensor


@torch.no_grad()
def posteriors(model: Submodel, inputs: ModelInput) -> Array:
    """Class probabilities of every row of ``inputs``, ``[n, C]`` float32."""
    model.eval()
    result: Array = model(inputs, None).softmax(dim=1).cpu().numpy()
    return result
