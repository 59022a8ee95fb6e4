"""Generation: one consistent set of graph, partition, submodels and aggregator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from cluster.digest import Digest, digest


class ShardEntry(NamedTuple):
    """What a generation says of one shard; a silent shard has no submodel.

    Attributes:
        key: key of the submodel.
        content_digest: digest of the rows that its training reads.
        weights_digest: digest of its weights, None where the shard is silent.
        slice_keys: keys of the checkpoints of its slices, in order; a missing one costs time only.
    """

    key: str
    content_digest: str
    weights_digest: str | None
    slice_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """What is published.

    Attributes:
        number: 1, 2, ... in order of publication.
        epoch: graph epoch it was built at; in no key.
        graph_key: digest of the surviving records.
        partition_key: digest of the assignment and the guarantee.
        aggregator_key: digest of the aggregator's inputs.
        shards: shard number -> entry, silent shards included.
        artefacts: every stored artefact it refers to, as (kind, key).
        costs: shard number -> seconds of its last training from fresh weights.
        retrained: shards that were trained for it; in no key.
    """

    number: int
    epoch: int
    graph_key: str
    partition_key: str
    aggregator_key: str
    shards: Mapping[int, ShardEntry]
    artefacts: tuple[tuple[str, str], ...] = ()
    costs: Mapping[int, float] = field(default_factory=dict)
    retrained: tuple[int, ...] = ()

    @cached_property
    def key(self) -> Digest:
        """Digest of everything it consists of; two histories with one outcome agree in it."""
        keys = [entry.key for _, entry in sorted(self.shards.items())]
        return digest("generation", self.graph_key, self.partition_key, keys, self.aggregator_key)

    @property
    def submodels(self) -> dict[int, str]:
        """Shard number -> submodel key, silent shards left out."""
        return {
            shard: entry.key
            for shard, entry in sorted(self.shards.items())
            if entry.weights_digest is not None
        }

    def reading(self, graph_key: str, partition_key: str) -> Generation:
        """These submodels and this aggregator on another graph."""
        return replace(self, graph_key=graph_key, partition_key=partition_key)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form (without the number, which the ledger keeps)."""
        return {
            "epoch": self.epoch,
            "graph_key": self.graph_key,
            "partition_key": self.partition_key,
            "aggregator_key": self.aggregator_key,
            "shards": {str(shard): list(entry) for shard, entry in self.shards.items()},
            "artefacts": [list(item) for item in self.artefacts],
            "retrained": list(self.retrained),
            "costs": {str(shard): seconds for shard, seconds in self.costs.items()},
        }

    @classmethod
    def from_json(cls, number: int, data: Mapping[str, Any]) -> Generation:
        """Inverse of :meth:`to_json`."""
        return cls(
            number,
            data["epoch"],
            data["graph_key"],
            data["partition_key"],
            data["aggregator_key"],
            {int(shard): _entry(*entry) for shard, entry in data["shards"].items()},
            tuple((kind, key) for kind, key in data["artefacts"]),
            {int(shard): seconds for shard, seconds in data["costs"].items()},
            tuple(data["retrained"]),
        )


def _entry(
    key: str, content_digest: str, weights_digest: str | None, slice_keys: Sequence[str] = ()
) -> ShardEntry:
    """An entry from JSON; one written before there were slices has no such list."""
    return ShardEntry(key, content_digest, weights_digest, tuple(slice_keys))
