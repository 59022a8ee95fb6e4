"""What an aggregator is: it may be fitted, and it turns posteriors into one answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cluster.digest import Digest, digest
from cluster.graph import Graph
from cluster.partition import Partition
from cluster.store import Blob, Store
from coordinator.config import Config
from coordinator.disturbance import Disturbance
from coordinator.generation import Generation
from coordinator.pools import Pool
from shards.recipe import Recipe

Array = npt.NDArray[Any]

AGGREGATOR, PACK = "aggregator", "posteriors"
# raise a kind's number whenever code changes the bits that it is fitted to; 1 where none is named
NUMERICS_VERSIONS = {"learned": 3, "merge": 2}


@dataclass(frozen=True)
class AggregatorState:
    """A fitted aggregator.

    Attributes:
        key: digest of its declared inputs.
        tensors: what was fitted; empty for an aggregator without parameters.
        meta: what it was fitted on, by key (no ids).
        artefacts: stored artefacts it needs, as (kind, key).
    """

    key: Digest
    tensors: Mapping[str, Array] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    artefacts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FitContext:
    """What an aggregator may read while it is fitted.

    Attributes:
        graph: the surviving graph, stored under ``graph_key``.
        partition: who owns which training node.
        submodels: shard number -> submodel key, silent shards left out.
        config: root configuration.
        recipe: recipe of the submodels.
        pool: where posteriors are computed.
        store: the home's store, at ``home``.
        write: stores blobs under (kind, key), registered in the ledger first.
        previous: the aggregator before this change, if there is one.
        disturbance: what the change since ``previous`` disturbs; None when everything is to be
            computed.
    """

    graph: Graph
    graph_key: str
    partition: Partition
    submodels: Mapping[int, str]
    config: Config
    recipe: Recipe
    pool: Pool
    store: Store
    home: str
    write: Callable[[Mapping[tuple[str, str], Blob]], None]
    previous: AggregatorState | None
    disturbance: Disturbance | None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What a fitted aggregator's key covers besides the data it reads."""
        settings = self.config.aggregator.model_dump()
        roles, seed = self.config.roles.model_dump(), self.config.seed
        version = numerics_version(self.config.aggregator.kind)
        return version, settings, roles, self.partition.key, self.recipe.key, seed


def numerics_version(kind: str) -> int:
    """Version of the code that fits an aggregator of this kind."""
    return NUMERICS_VERSIONS.get(kind, 1)


@dataclass(frozen=True)
class ServingHome:
    """Where a worker finds what it answers with.

    Attributes:
        path: folder of the system.
        graph_key: the current graph.
        partition_key: its partition.
        recipe: recipe of the submodels.
        pool: the workers.
    """

    path: str
    graph_key: str
    partition_key: str
    recipe: Recipe
    pool: Pool


class GraphTables(Protocol):
    """What the whole graph tells a fitted aggregator, held in this process."""

    def answer(self, posteriors: Array, view: View, tensors: Mapping[str, Array]) -> Array:
        """``[n, C]`` float64 probabilities on the rows of a view.

        Args:
            posteriors: ``[s, n, C]`` of the view's shards.
            view: which rows and shards.
            tensors: what the fit gave.
        """
        ...


@dataclass(frozen=True)
class View:
    """What an aggregator may read while it answers: the current graph and who owns what.

    Attributes:
        graph: the surviving graph.
        owner: ``[N]`` owner of each row, negative where no shard owns it.
        shards: ``[s]`` shard numbers of the posteriors, in order.
        home: for an aggregator that lets a worker answer.
        rows: ``[n]`` rows that the posteriors speak of; None for all of them.
        tables: for an aggregator that reads the whole graph, in the place of a worker.
    """

    graph: Graph
    owner: Array
    shards: tuple[int, ...]
    home: ServingHome | None = None
    rows: Array | None = None
    tables: GraphTables | None = None


class Aggregator(ABC):
    """One way to aggregate; deterministic, and blind to the order of work."""

    kind: str
    needs_fit = False  # whether it answers by parameters of its own
    reads_submodels = True  # whether the submodels have a say
    reads_labels = False  # whether a label step is part of it
    reads_walk = False  # whether a walk of two steps around a row has a part in its answer

    def fit(self, context: FitContext) -> AggregatorState:
        """Fit on the declared inputs; without parameters there is only a key."""
        settings = context.config.aggregator.model_dump()
        return AggregatorState(digest("aggregator", settings, context.partition.key))

    def validation_answers(self, context: FitContext) -> tuple[Array, Array] | None:
        """Rows and ``[R, C]`` honest answers on validation rows that the fit itself reads.

        None where validation rows have no part in the fit, so that its answers there are honest.
        """
        return None

    def leave_out(self, state: AggregatorState, kept: Array) -> AggregatorState:
        """The parameters with some shards' votes dropped (``[s]`` bool, those that are kept)."""
        return state

    @abstractmethod
    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """Aggregate ``[s, n, C]`` posteriors on the view's rows to ``[n, C]`` probabilities."""


def reweighted(state: AggregatorState, kept: Array) -> AggregatorState:
    """A state whose ``weights`` are one a shard, those kept sharing all; alike if none has any."""
    weights = state.tensors["weights"][kept]
    total = weights.sum()
    shares = weights / total if total > 0 else np.full(len(weights), 1 / max(len(weights), 1))
    return replace(state, tensors={**state.tensors, "weights": shares})


def load_state(store: Store, generation: Generation, meta: Mapping[str, Any]) -> AggregatorState:
    """The fitted aggregator of a published generation.

    Raises:
        CorruptArtefactError: its parameters are missing or changed.
    """
    stored = [item for item in generation.artefacts if item[0] == AGGREGATOR]
    artefacts = tuple(item for item in generation.artefacts if item[0] in (AGGREGATOR, PACK))
    tensors = store.get(*stored[0]).tensors if stored else {}
    return AggregatorState(Digest(generation.aggregator_key), tensors, meta, artefacts)


def weighted_sum(posteriors: Array, weights: Array) -> Array:
    """``sum_s w[n, s] p[s, n, c]`` in float64, shards added in order."""
    total = np.zeros(posteriors.shape[1:], np.float64)
    for shard, posterior in enumerate(posteriors):
        total += weights[:, shard, None] * posterior.astype(np.float64)
    return total


def weighted_alike(posteriors: Array, weights: Array) -> Array:
    """:func:`weighted_sum` with one weight a shard, ``[s]``, for every node."""
    return weighted_sum(posteriors, np.tile(weights, (posteriors.shape[1], 1)))
