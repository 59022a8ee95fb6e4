"""Partition: which shard owns which training node, under which guarantee, and how good it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.config import Guarantee, PartitionConfig, RolesConfig
from cluster.digest import Digest, NodeId, digest
from cluster.errors import GraphError
from cluster.graph import TRAIN, UNLABELLED, Graph
from cluster.halo import UNASSIGNED as UNASSIGNED
from cluster.halo import Examined, Halo, examine

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Partition:
    """Assignment of training nodes to shards.

    Attributes:
        ids: ``[T]`` external ids of the training nodes, in canonical order.
        shards: ``[T]`` int32 owner of each.
        num_shards: k, fixed at creation; a shard may be empty.
        guarantee: what the assignment may depend on (DESIGN section 5).
        id_type: type of the external ids.
        names: k shard names; a submodel's seed derives from the name, never from the number.
        info: how it was made (method, seed); metadata, in no key. Figures of the graph have no
            place here: they would outlive what is erased.
        halo: what a shard reads beside its own nodes; None for nothing.
    """

    ids: Array
    shards: Array
    num_shards: int
    guarantee: Guarantee
    id_type: str
    names: tuple[str, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    halo: Halo | None = None

    @cached_property
    def key(self) -> Digest:
        """Digest of the assignment itself, the guarantee, and the halo if there is one."""
        named = (self.num_shards, self.names, self.guarantee, self.id_type)
        halo = () if self.halo is None else (self.halo.inputs,)
        return digest("partition", named, self.ids, self.shards.astype(np.int32), *halo)

    @property
    def assignment(self) -> dict[NodeId, int]:
        """External id -> shard number."""
        return dict(zip(self.ids.tolist(), self.shards.tolist(), strict=True))

    def sizes(self) -> Array:
        """``[k]`` nodes owned by each shard."""
        return np.bincount(self.shards, minlength=self.num_shards)

    def owners(self, graph: Graph) -> Array:
        """``[N]`` int32 owner of every row of ``graph``, UNASSIGNED where no shard owns it."""
        owner = np.full(graph.num_nodes, UNASSIGNED, np.int32)
        owner[graph.rows(self.ids)] = self.shards
        return owner

    def restrict(self, graph: Graph) -> Partition:
        """Keep the assignment of the nodes that ``graph`` still holds."""
        alive = np.isin(self.ids, graph.ids) if self.id_type == "int" else np.asarray(
            [i in graph._row_of for i in self.ids.tolist()], bool
        )  # fmt: skip
        if alive.all():
            return self
        return replace(self, ids=self.ids[alive], shards=self.shards[alive])

    def examined(self, graph: Graph) -> Examined:
        """Which shards examine, and which read, every row of ``graph``."""
        return examine(graph, self.owners(graph), self.names, self.halo)


def nominal_size(graph: Graph, config: PartitionConfig, roles: RolesConfig) -> float:
    """Mean shard size in nodes by declared numbers only, so that it stays when rows go."""
    return graph.schema.nominal_nodes * roles.train / config.num_shards


def capacity(graph: Graph, config: PartitionConfig, roles: RolesConfig) -> int:
    """Largest shard size, from declared numbers only, so that it stays when rows go.

    The mean is taken over the nominal number of training nodes; it grows only where the actual
    training nodes would not fit at all.
    """
    if config.capacity is not None:
        return config.capacity
    nominal = nominal_size(graph, config, roles)
    actual = np.count_nonzero(graph.roles(roles) == TRAIN) / config.num_shards
    return max(math.ceil((1 + config.max_imbalance) * nominal), math.ceil(actual))


def from_assignment(
    graph: Graph,
    shards: Array,
    config: PartitionConfig,
    roles: RolesConfig,
    info: Mapping[str, Any],
) -> Partition:
    """Wrap an assignment of the training rows (in canonical order) as a Partition.

    Under ``rederived`` a shard is named after its member with the smallest keyed hash and numbered
    in that order, so that the numbering a partitioner happened to use moves nothing.
    """
    train = np.flatnonzero(graph.roles(roles) == TRAIN)
    if len(shards) != len(train):
        raise GraphError(f"{len(shards)} assignments for {len(train)} training nodes")
    names = tuple(str(s) for s in range(config.num_shards))
    shards = np.asarray(shards, np.int32)
    if config.effective_guarantee == "rederived":
        shards, names = _name_by_member(graph, train, shards, config)
    return Partition(
        graph.ids[train],
        shards,
        config.num_shards,
        config.effective_guarantee,
        graph.schema.id_type,
        names,
        info,
    )


def _name_by_member(
    graph: Graph, train: Array, shards: Array, config: PartitionConfig
) -> tuple[Array, tuple[str, ...]]:
    hashes = graph.hash("shard-name", config.seed)[train]
    smallest: dict[int, int] = {}
    for shard, value in zip(shards.tolist(), hashes.tolist(), strict=True):
        smallest[shard] = min(value, smallest.get(shard, value))
    ranked = sorted(smallest, key=lambda shard: smallest[shard])
    number = {shard: rank for rank, shard in enumerate(ranked)}
    names = [f"{smallest[shard]:016x}" for shard in ranked]
    names += [f"empty-{i}" for i in range(config.num_shards - len(names))]
    return np.asarray([number[s] for s in shards.tolist()], np.int32), tuple(names)


@dataclass(frozen=True)
class Quality:
    """Figures of a partition over the induced graph of its training nodes.

    Attributes:
        cut: share of training edges whose ends have different owners.
        balance: largest shard over the mean shard size.
        modularity: Newman's Q of the shards.
        readers: mean number of shards that read a training node (1 without halos).
        fairness: mean over shards of half the L1 distance between the shard's shares of labels
            and those of all training nodes (GUIDE); 0 is fair, empty shards are left out.
    """

    cut: float
    balance: float
    modularity: float
    readers: float
    fairness: float


def quality(graph: Graph, partition: Partition) -> Quality:
    """Measure a partition."""
    owner = partition.owners(graph)
    inside = (owner[graph.src] != UNASSIGNED) & (owner[graph.dst] != UNASSIGNED)
    a, b = owner[graph.src[inside]], owner[graph.dst[inside]]
    num_edges = max(len(a), 1)
    kept = a == b
    degree = np.bincount(a, minlength=partition.num_shards) + np.bincount(
        b, minlength=partition.num_shards
    )
    within = np.bincount(a[kept], minlength=partition.num_shards) / num_edges
    modularity = float((within - (degree / (2 * num_edges)) ** 2).sum())
    sizes = partition.sizes()
    return Quality(
        cut=float(1 - kept.sum() / num_edges) if len(a) else 0.0,
        balance=float(sizes.max() / max(sizes.mean(), 1e-12)),
        modularity=modularity,
        readers=float(partition.examined(graph).read.sum() / max(len(partition.ids), 1)),
        fairness=_fairness(graph, owner, partition.num_shards),
    )


def _fairness(graph: Graph, owner: Array, num_shards: int) -> float:
    labelled = (owner != UNASSIGNED) & (graph.y != UNLABELLED)
    width = graph.schema.num_classes
    cells = owner[labelled].astype(np.int64) * width + graph.y[labelled]
    counts = np.bincount(cells, minlength=num_shards * width).reshape(num_shards, width)
    held = counts[counts.any(axis=1)]
    if not len(held):
        return 0.0
    shares, whole = held / held.sum(axis=1, keepdims=True), held.sum(axis=0) / held.sum()
    return float(np.abs(shares - whole).sum(axis=1).mean() / 2)
