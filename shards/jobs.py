"""What a coordinator asks of a shard actor and what it answers; keys and paths, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from cluster.graph import Located
from shards.content import ShardContent
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
class GraphMove:
    """How a graph came from the one before.

    Attributes:
        previous_key: graph before.
        located: what went, by its place there.
        kept: ``[N]`` row that each row had there, ascending.
        renewed: ascending rows whose own features may have changed.
        moved: ascending rows whose averages over a walk may have changed.
    """

    previous_key: str
    located: Located
    kept: Array
    renewed: Array
    moved: Array


@dataclass(frozen=True)
class RowsJob:
    """Posteriors of some submodels on a few rows, the same bits whichever rows go together.

    Attributes:
        wanted: per submodel ascending rows of the graph.
        move: what changed since a graph that a worker may hold.
    """

    home: str
    graph_key: str
    submodel_keys: tuple[str, ...]
    recipe: Recipe
    hops: int
    wanted: tuple[Array, ...]
    move: GraphMove | None = None


@dataclass(frozen=True)
class RidgeJob:
    """A ridge head over the whole graph.

    Attributes:
        labels: ``[N]`` int64 label of each training row, -1 elsewhere.
        probe: rows with a training label on which lambda is chosen.
        width: columns of each part of projected features.
        seed: root seed of the system.
        move: what changed since a graph whose statistics a worker may hold; None to start afresh.
    """

    home: str
    graph_key: str
    recipe: Recipe
    labels: Array
    probe: Array
    width: int
    seed: int
    move: GraphMove | None = None


@dataclass(frozen=True)
class LearnJob:
    """Fit of the learned aggregator.

    Attributes:
        ridge: its ridge expert.
        partition_key: who owns which training node.
        shards: the s shards that have a submodel.
        rows: ``[R]`` fit rows of the graph.
        posteriors: ``[s, R, C]`` answers of the submodels there.
    """

    ridge: RidgeJob
    partition_key: str
    shards: tuple[int, ...]
    rows: Array
    posteriors: Array


@dataclass(frozen=True)
class AnswerJob:
    """Answers of a fitted aggregator on every row of the graph.

    Attributes:
        learn: what it was fitted with, ``rows`` and ``posteriors`` being those of the whole graph.
        tensors: what the fit gave; a ridge head alone answers by itself.
    """

    learn: LearnJob
    tensors: Mapping[str, Array]


@dataclass(frozen=True)
class ReleaseJob:
    """Let go of everything of a home that is not of its published generation.

    Attributes:
        home: folder of the system.
        graph_key: the published graph; None when nothing is to be kept.
        submodel_keys: the published submodels.
    """

    home: str
    graph_key: str | None = None
    submodel_keys: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Questions:
    """Nodes that a submodel is asked about, with all that its answers depend on.

    Attributes:
        x: ``[n, F]`` features of the nodes and of what is around them.
        edges: in-neighbour CSR among them.
        degree: ``[n]`` float32 in-degree in the graph that counts.
        symmetric: whether every edge has its reverse.
        targets: ``[q]`` rows that are asked about.
        labels: ``[q]`` class index of each.
    """

    x: Any
    edges: tuple[Array, Array, Array | None]
    degree: Array
    symmetric: bool
    targets: Array
    labels: Array


@dataclass(frozen=True)
class AuditJob:
    """Ask a submodel that is trained for an audit, or given; nothing of it is kept.

    Attributes:
        content: what the submodel is trained on; None where ``weights`` are given.
        seed: seed of its training.
        weights: state dict of a submodel that is there already.
    """

    recipe: Recipe
    questions: Questions
    content: ShardContent | None = None
    seed: int = 0
    weights: Mapping[str, Array] | None = None
