"""What a coordinator asks of a shard actor and what it answers; keys and paths, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from shards.recipe import Recipe

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BuildJob:
    """Train one shard from its stored content and stage the checkpoint.

    Attributes:
        slice_keys: slice number -> key of the checkpoint that the slice leaves.
    """

    home: str
    fence: int
    shard: int
    content_key: str
    submodel_key: str
    recipe: Recipe
    seed: int
    slice_keys: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildReport:
    """What one training cost and gave.

    Attributes:
        training_epochs: epochs run, over all slices trained.
        slices_reused: slices skipped, since the checkpoint of the last of them was there.
        staged_slices: keys of the checkpoints of the slices trained.
    """

    shard: int
    submodel_key: str
    weights_digest: str
    seconds: float
    cpu_seconds: float
    training_epochs: int
    slices_reused: int = 0
    staged_slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluateJob:
    """Posteriors of some submodels on every row of the graph."""

    home: str
    graph_key: str
    submodel_keys: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class BlocksJob:
    """Posterior blocks of some submodels on some balls.

    Attributes:
        buckets: per ball its fit rows (rows of the graph).
        wanted: per submodel the positions in ``buckets`` of the blocks to compute.
    """

    home: str
    graph_key: str
    submodel_keys: tuple[str, ...]
    recipe: Recipe
    hops: int
    buckets: tuple[Array, ...]
    wanted: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ReplayJob:
    """Train one shard again, its content rebuilt from the graph's segments."""

    home: str
    graph_key: str
    partition_key: str
    shard: int
    recipe: Recipe
    seed: int


@dataclass(frozen=True)
class ReplayReport:
    """What a replay gave, to be compared with what is published.

    Attributes:
        slice_digests: key of each slice's checkpoint -> digest of the state that belongs in it.
    """

    shard: int
    content_digest: str
    submodel_key: str
    weights_digest: str | None
    slice_digests: Mapping[str, str] = field(default_factory=dict)
