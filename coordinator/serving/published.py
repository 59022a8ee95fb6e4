"""A published generation as a replica holds it: read without the right to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.graph import Graph
from cluster.home import load_graph, load_partition
from cluster.store import Store
from coordinator.aggregators.base import AggregatorState, load_state
from coordinator.config import Config
from coordinator.generation import Generation
from shards.checkpoint import load_weights
from shards.stacked import Stack

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Published:
    """What does not change while a generation is served.

    Attributes:
        number: of the generation.
        graph: its graph; what was masked later still stands in it.
        owner: ``[N]`` owner of each row, negative where no shard owns it.
        shards: the shards that have a submodel, ascending.
        stack: their submodels; None where every shard is silent.
        aggregator: the fitted aggregator.
        config: root configuration.
    """

    number: int
    graph: Graph
    owner: Array
    shards: tuple[int, ...]
    stack: Stack | None
    aggregator: AggregatorState
    config: Config

    def owned_by(self, shards: tuple[int, ...], rows: Array) -> Array:
        """``[n]`` bool, whether one of these shards owns a row."""
        return np.isin(self.owner[rows], np.asarray(shards, np.int64))


def load_published(store: Store, number: int, body: Mapping[str, Any], config: Config) -> Published:
    """Read a generation; only reads, so it takes no lease on the ledger.

    Args:
        store: the home's store.
        number: of the generation.
        body: its JSON form, the aggregator's ``meta`` under ``aggregator``.
        config: root configuration.

    Raises:
        CorruptArtefactError: a file is missing, as when a later generation was published, or was
            changed.
    """
    generation = Generation.from_json(number, body)
    graph = load_graph(store, generation.graph_key)
    partition = load_partition(store, generation.partition_key)
    weights = [load_weights(store, key) for key in generation.submodels.values()]
    return Published(
        number,
        graph,
        partition.owners(graph),
        tuple(generation.submodels),
        Stack(config.shards, weights) if weights else None,
        load_state(store, generation, body["aggregator"]),
        config,
    )
