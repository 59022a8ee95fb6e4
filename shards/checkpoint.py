"""Checkpoints: weights in safetensors with a manifest, under their content address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import Blob, Store
from shards.content import ShardContent
from shards.recipe import Recipe

if TYPE_CHECKING:
    from shards.training import Trained, Weights

SUBMODEL, CONTENT, SLICE = "submodel", "content", "slice"


def submodel_blob(trained: Trained, content: ShardContent, recipe: Recipe, seed: int) -> Blob:
    """A trained submodel as an artefact: a pure function of its declared inputs."""
    meta = {
        "content": content.digest,
        "recipe": recipe.key,
        "config": recipe.config.model_dump(),
        "profile": dict(recipe.profile),
        "seed": seed,
        "weights_digest": trained.digest,
        "losses": list(trained.losses),
    }
    return Blob(trained.weights, meta)


def load_weights(store: Store, key: str) -> Weights:
    """Read a submodel's weights.

    Raises:
        CorruptArtefactError: the checkpoint is missing or was changed.
    """
    return store.get(SUBMODEL, key).tensors
