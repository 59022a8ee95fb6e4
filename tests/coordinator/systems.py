"""Graphs as plain records, and tiny systems fitted on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId
from cluster.graph import TRAIN, Graph
from cluster.partition import Partition
from cluster.schema import Schema
from cluster.store import Blob
from coordinator.aggregators.base import PACK
from coordinator.config import Config, load_config
from coordinator.erasure import Erasure
from coordinator.pools import Pool
from coordinator.pools.base import Progress
from coordinator.system import System, utc_now

TINY = {
    "partition": {"method": "louvain", "num_shards": 3},
    "shards": {
        "model": "gcn",
        "hidden": 8,
        "training_epochs": 5,
        "lr": 0.01,
        "weight_decay": 5e-4,
    },
    "aggregator": {"kind": "gate"},
}


@dataclass(frozen=True)
class Records:
    """A graph as plain records, so that one without some of them is built from nothing else.

    Attributes:
        features: id -> its row.
        labels: id -> class, labelled nodes only.
        edges: undirected ``(u, v)``, smaller end first.
        schema: declared schema; made from the records when left out.
    """

    features: Mapping[NodeId, tuple[float, ...]]
    labels: Mapping[NodeId, int]
    edges: frozenset[tuple[NodeId, NodeId]]
    schema: Schema | None = None

    def graph(self) -> Graph:
        """Through the reader of arrays."""
        ids = list(self.features)
        row = {node_id: i for i, node_id in enumerate(ids)}
        ends = [(row[u], row[v]) for u, v in sorted(self.edges, key=str)]
        return Graph.from_arrays(
            np.asarray(ends, np.int64).reshape(-1, 2).T,
            np.asarray(list(self.features.values()), np.float32),
            [self.labels.get(node_id) for node_id in ids],
            ids=ids,
            schema=self.schema,
        )

    def without(self, *erasures: Erasure) -> Records:
        """The records that survive, by plain set arithmetic."""
        features, labels, edges = dict(self.features), dict(self.labels), set(self.edges)
        assert self.schema is not None
        names = self.schema.features
        for erasure in erasures:
            for node_id in erasure.nodes:
                features.pop(node_id, None)
            for node_id in (*erasure.nodes, *erasure.labels):
                labels.pop(node_id, None)
            edges -= {edge for u, v in erasure.edges for edge in ((u, v), (v, u))}
            for node_id, columns in erasure.features.items():
                gone = set(names if columns is None else columns)
                cells = zip(names, features.get(node_id, ()), strict=False)
                row = tuple(0.0 if name in gone else cell for name, cell in cells)
                if node_id in features:
                    features[node_id] = row
        edges = {(u, v) for u, v in edges if u in features and v in features}
        return replace(self, features=features, labels=labels, edges=frozenset(edges))


def planted(seed: int, num_nodes: int = 45, *, degree: int = 3, prefix: str = "") -> Records:
    """Seeded records: 3 planted classes, 6 features, most edges inside a class, some unlabelled."""
    rng = np.random.default_rng(seed)
    ids: list[NodeId] = [f"{prefix}{i:04d}" if prefix else 11 + 3 * i for i in range(num_nodes)]
    group = rng.integers(0, 3, num_nodes)
    x = rng.integers(0, 4, (num_nodes, 6)).astype(float)
    x[np.arange(num_nodes), group] += 3
    edges = set()
    for u in range(num_nodes):
        for _ in range(degree):
            near = np.flatnonzero(group == group[u]) if rng.random() < 0.8 else np.arange(num_nodes)
            v = int(rng.choice(near))
            if u != v:
                edges.add((ids[min(u, v)], ids[max(u, v)]))
    labelled = rng.random(num_nodes) < 0.9
    labelled[:9] = True
    labels = {ids[i]: int(group[i]) for i in range(num_nodes) if labelled[i]}
    features = {ids[i]: tuple(x[i].tolist()) for i in range(num_nodes)}
    records = Records(features, labels, frozenset(edges))
    return replace(records, schema=records.graph().schema)


def tiny(overrides: Mapping[str, Any] | None = None) -> Config:
    """A configuration that trains in milliseconds."""
    return load_config(TINY, overrides)


class WatchedPool:
    """A shared pool that remembers what was asked of it."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self.size = pool, pool.size
        self.asked: list[tuple[str, Any]] = []

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        self.asked += [(method, job) for job in jobs]
        return self._pool.map(method, jobs, progress)

    def tell(self, method: str, job: Any) -> list[Any]:
        return self._pool.tell(method, job)

    def rows_computed(self, graph: Graph) -> dict[str, set[NodeId]]:
        """Submodel key -> ids of the fit rows that it was asked for."""
        jobs = [job for method, job in self.asked if method == "rows"]
        return {
            key: set(graph.ids[rows].tolist())
            for job in jobs
            for key, rows in zip(job.submodel_keys, job.wanted, strict=True)
        }

    def cpu_seconds(self) -> float:
        return self._pool.cpu_seconds()

    def close(self) -> None:
        raise AssertionError("a shared pool is not closed by a System")


@dataclass
class Workbench:
    """Fits and opens systems on one pool, each in a folder of its own, and closes them all."""

    pool: Pool
    root: Path

    def __post_init__(self) -> None:
        self._made: list[System] = []

    def fit(
        self,
        graph: Graph | Records,
        overrides: Mapping[str, Any] | None = None,
        *,
        home: Path | None = None,
        partition: Partition | None = None,
        pool: Pool | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> System:
        """Fit a tiny system."""
        system = System.fit(
            graph if isinstance(graph, Graph) else graph.graph(),
            tiny(overrides),
            home or self.root / f"home-{len(self._made)}",
            pool=pool or self.pool,
            partition=partition,
            clock=clock,
        )
        self._made.append(system)
        return system

    def open(
        self,
        home: Path,
        *,
        graph: Graph | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> System:
        """Open a home."""
        system = System.open(home, graph=graph, pool=self.pool, clock=clock)
        self._made.append(system)
        return system

    def close(self) -> None:
        """Close what was made here; closing twice does nothing."""
        for system in self._made:
            system.close()


def kept_partition(partition: Partition, records: Records) -> Partition:
    """The partition of the survivors, built from the plain assignment."""
    alive = {i: s for i, s in partition.assignment.items() if i in records.features}
    ids = np.empty(len(alive), np.int64 if partition.id_type == "int" else object)
    ids[:] = list(alive)
    return Partition(
        ids,
        np.asarray(list(alive.values()), np.int32),
        partition.num_shards,
        partition.guarantee,
        partition.id_type,
        partition.names,
        halo=partition.halo,
    )


def training_ids(system: System) -> list[NodeId]:
    """Ids of role train, ascending."""
    graph = system.graph
    found: list[NodeId] = graph.ids[graph.roles(system.config.roles) == TRAIN].tolist()
    return found


def unowned_ids(system: System) -> list[NodeId]:
    """Ids of role val or test, ascending."""
    owned = set(training_ids(system))
    return [i for i in system.graph.ids.tolist() if i not in owned]


def erasure_of_every_kind(system: System, records: Records) -> dict[str, Erasure]:
    """One erasure of each kind, each naming records that exist."""
    shard = system.partition.assignment
    inside = [e for e in sorted(records.edges) if {e[0], e[1]} <= shard.keys()]
    inner = [e for e in inside if shard[e[0]] == shard[e[1]]]
    crossing = [e for e in inside if shard[e[0]] != shard[e[1]]]
    node = inner[0][0]
    labelled = [i for i in shard if i in records.labels and i != node]
    return {
        "node": Erasure(nodes=[node]),
        "edge inside a shard": Erasure(edges=[inner[1][::-1]]),
        "edge across shards": Erasure(edges=[crossing[0]]),
        "one feature": Erasure(features={labelled[0]: [_nonzero(records, labelled[0])]}),
        "all features": Erasure(features={labelled[1]: None}),
        "label": Erasure(labels=[labelled[2]]),
        "several kinds": Erasure(
            nodes=[node, unowned_ids(system)[0]],
            edges=[inner[-1], crossing[-1]],
            features={labelled[3]: ["f0", "f4"], labelled[4]: None},
            labels=[labelled[5], labelled[4]],
        ),
    }


def _nonzero(records: Records, node_id: NodeId) -> str:
    return f"f{np.flatnonzero(records.features[node_id])[0]}"


def random_erasures(records: Records, count: int, seed: int) -> list[Erasure]:
    """Requests of all kinds, drawn with repetition from the records as they were at first."""
    rng = np.random.default_rng(seed)
    ids, edges = sorted(records.features, key=str), sorted(records.edges, key=str)

    def one() -> NodeId:
        return ids[rng.integers(len(ids))]

    kinds = [
        lambda: Erasure(nodes=[one()]),
        lambda: Erasure(edges=[edges[rng.integers(len(edges))]]),
        lambda: Erasure(features={one(): [f"f{rng.integers(6)}", f"f{rng.integers(6)}"]}),
        lambda: Erasure(features={one(): None}),
        lambda: Erasure(labels=[one()]),
        lambda: Erasure(nodes=[one()], labels=[one()], features={one(): ["f1"]}),
    ]
    return [kinds[rng.integers(len(kinds))]() for _ in range(count)]


def summary(system: System) -> dict[str, Any]:
    """What is published, down to the tensors."""
    generation = system.generation
    return {
        "key": generation.key,
        "graph_key": generation.graph_key,
        "partition_key": generation.partition_key,
        "aggregator_key": generation.aggregator_key,
        "shards": {shard: tuple(entry) for shard, entry in generation.shards.items()},
        "fitted": {name: np.array(t) for name, t in system.engine.live.aggregator.tensors.items()},
        "weights": {
            shard: {name: tensor.numpy() for name, tensor in system.submodel(shard).items()}
            for shard in generation.submodels
        },
    }


def assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Two summaries agree in every key and bit."""
    assert found["shards"] == wanted["shards"]
    assert_same_tensors(found["fitted"], wanted["fitted"])
    assert found["weights"].keys() == wanted["weights"].keys()
    for shard, tensors in found["weights"].items():
        assert_same_tensors(tensors, wanted["weights"][shard])
    for name in ("graph_key", "partition_key", "aggregator_key", "key"):
        assert found[name] == wanted[name], name


def assert_same_tensors(
    found: Mapping[str, npt.NDArray[Any]], wanted: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Two sets of named tensors agree bit for bit."""
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert tensor.dtype == wanted[name].dtype
        assert tensor.tobytes() == wanted[name].tobytes(), name


def packs_of(system: System) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Key of a pack of fit answers -> submodel key -> ``[R, C]`` answers."""
    return {
        key: dict(system.engine.store.get(kind, key).tensors)
        for kind, key in system.generation.artefacts
        if kind == PACK
    }


def assert_same_packs(found: System, wanted: System) -> None:
    """Two systems hold the same packs, bit for bit."""
    ours, theirs = packs_of(found), packs_of(wanted)
    assert ours.keys() == theirs.keys()
    for key, tables in ours.items():
        assert_same_tensors(tables, theirs[key])


def weights_of(system: System) -> dict[int, str | None]:
    """Shard -> digest of its weights, None where it is silent."""
    return {shard: entry.weights_digest for shard, entry in system.generation.shards.items()}


def keys_of(system: System) -> dict[int, str]:
    """Shard -> key of its submodel."""
    return {shard: entry.key for shard, entry in system.generation.shards.items()}


def moved(before: Mapping[int, Any], after: Mapping[int, Any]) -> set[int]:
    """Shards whose value differs."""
    return {shard for shard in before if before[shard] != after[shard]}


def forge(system: System, **parts: Any) -> None:
    """Have a system believe in other published parts than were published."""
    system.engine.live = replace(system.engine.live, **parts)


def overwrite(system: System, kind: str, key: str, blob: Blob) -> None:
    """Put another blob, well formed, in an artefact's place."""
    system.engine.store.stage(kind, key, blob, fence=10**6)
    system.engine.store.promote(kind, [key], fence=10**6)


def files_of(home: Path) -> dict[str, tuple[int, int]]:
    """Path of every object -> inode and time of its last change."""
    found = {}
    for path in sorted((home / "objects").rglob("*.safetensors")):
        stat = path.stat()
        found[f"{path.parent.name}/{path.stem}"] = (stat.st_ino, stat.st_mtime_ns)
    return found


def artefacts_of(system: System) -> set[str]:
    """What the published generation refers to, as paths below ``objects``."""
    return {f"{kind}/{key}" for kind, key in system.generation.artefacts}


def state_of(system: System) -> tuple[Any, ...]:
    """Everything that a request which is refused may not move."""
    ledger = system.engine.ledger
    return (
        system.generation,
        ledger.current_generation(),
        ledger.epoch(),
        ledger.requests.counts(),
        files_of(system.home),
    )
