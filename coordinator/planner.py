"""Plans: what an erasure touches and what it costs; pure functions of the published state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from cluster.graph import Change, Graph
from cluster.home import GRAPH, PARTITION, SEGMENT
from cluster.ids import NodeId
from cluster.partition import Partition
from coordinator.erasure import Erasure, present_part
from coordinator.generation import Generation
from coordinator.results import Plan
from shards.checkpoint import CONTENT, SLICE, SUBMODEL
from shards.content import build_content
from shards.erasure_cost import ErasureCost, erasure_cost, training_sizes
from shards.shard_graph import ReaderIndex, build_index, retrained_by_nodes


def make_plan(
    graph: Graph,
    index: ReaderIndex,
    partition: Partition,
    generation: Generation,
    erasure: Erasure,
) -> Plan:
    """Plan an erasure of what the graph holds; the rest is listed as unknown."""
    change, absent = present_part(graph, erasure)
    if partition.guarantee == "rederived" and not change.is_empty:
        shards = tuple(range(partition.num_shards))
    else:
        shards = _retraining(graph, index, partition, generation, change)
    costs = generation.costs
    return Plan(
        erasure,
        Erasure(change.nodes, change.edges, dict(change.features), change.labels),
        generation.epoch,
        str(generation.key),
        shards,
        count_records(graph, change),
        sum(costs.get(shard, 0.0) for shard in shards),
        sum(costs.values()),
        (*absent.nodes, *absent.edges, *absent.features, *absent.labels),
    )


def _retraining(
    graph: Graph,
    index: ReaderIndex,
    partition: Partition,
    generation: Generation,
    change: Change,
) -> tuple[int, ...]:
    """Shards that the change retrains.

    Without halos the index says it. With halos it also lists shards that merely examined a
    record; their contents after the change tell who really reads it.
    """
    listed = sorted(index.of_change(graph, change))
    if partition.halo is None or not listed:
        return tuple(listed)
    after = graph.apply(change)
    index_after = build_index(after, partition.restrict(after), has_phantoms=index.has_phantoms)
    contents = {shard: build_content(after, index_after, shard) for shard in listed}
    return tuple(
        shard
        for shard, content in contents.items()
        if content.digest != generation.shards[shard].content_digest and not content.is_silent
    )


def forecast(
    graph: Graph, index: ReaderIndex, partition: Partition, generation: Generation
) -> ErasureCost:
    """Expected cost of erasing nodes; a silent shard trains nothing.

    Under ``rederived`` any erasure may move any shard, so, as in a plan, all of them count.
    """
    if partition.guarantee == "rederived":
        return ErasureCost(1.0, 1.0, 1.0, 1.0)
    sizes = training_sizes(index, partition.num_shards)
    trained = [shard in generation.submodels for shard in range(partition.num_shards)]
    return erasure_cost(graph, retrained_by_nodes(graph, index), sizes * trained)


def count_purged(
    graph: Graph, generation: Generation, erasure: Erasure, shards: Sequence[int]
) -> dict[str, int]:
    """Kind of artefact -> number of files an erasure supersedes, as far as that is known before.

    The aggregator's own files are those of the published generation; which of them survive is known
    once it is refitted.
    """
    change, _ = present_part(graph, erasure)
    if change.is_empty:
        return {}
    entries = [generation.shards[shard] for shard in shards]
    trained = [entry for entry in entries if entry.weights_digest]
    ours = {GRAPH, SEGMENT, PARTITION, CONTENT, SUBMODEL, SLICE}
    counts = Counter(kind for kind, _ in generation.artefacts if kind not in ours)
    counts[GRAPH] += 1
    counts[SEGMENT] += len(_touched_segments(graph, change))
    counts[PARTITION] += bool(change.nodes)
    counts[CONTENT] += len(trained)
    counts[SUBMODEL] += len(trained)
    counts[SLICE] += sum(len(entry.slice_keys) for entry in trained)
    return {kind: counts[kind] for kind in sorted(counts) if counts[kind]}


def _touched_segments(graph: Graph, change: Change) -> set[int]:
    """Segments with a record of the change: of nodes, and of edges by their smaller end."""
    gone = np.zeros(graph.num_nodes, bool)
    gone[graph.rows(change.nodes)] = True
    touched = gone.copy()
    touched[graph.rows([*change.labels, *(node_id for node_id, _ in change.features)])] = True
    edges = gone[graph.src] | gone[graph.dst]
    edges[graph.edge_positions(change.edges)] = True
    touched[np.minimum(graph.src[edges], graph.dst[edges])] = True
    return set(graph.segments[touched].tolist())


def count_records(graph: Graph, change: Change) -> dict[str, int]:
    """Records that go, edges of erased nodes included."""
    width = graph.schema.num_features
    cells = sum(width if names is None else len(names) for _, names in change.features)
    return {
        "nodes": len(change.nodes),
        "edges": _count_edges(graph, change),
        "features": cells,
        "labels": len(change.labels),
    }


def _count_edges(graph: Graph, change: Change) -> int:
    rows = graph.rows(change.nodes)
    if len(rows) <= 1 and not change.edges:  # most requests: no pass over all edges
        return int(graph.touching[rows].sum())
    gone = np.zeros(graph.num_nodes, bool)
    gone[rows] = True
    edges = gone[graph.src] | gone[graph.dst]
    edges[graph.edge_positions(change.edges)] = True
    return int(edges.sum())


def counts_in_order(graph: Graph, asked: Mapping[str, Erasure]) -> dict[str, dict[str, int]]:
    """What each of several erasures removes, one after the other, from a graph.

    Args:
        graph: the graph before all of them.
        asked: request -> its records, in the order in which they take effect.

    Returns:
        Request -> records that it removes and none before it did; they add up to the whole.
    """
    by_target = np.argsort(graph.dst, kind="stable")
    targets = graph.dst[by_target]
    gone_nodes = np.zeros(graph.num_nodes, bool)
    gone_edges = np.zeros(graph.num_edges, bool)
    cells: set[tuple[NodeId, str]] = set()
    labels: set[NodeId] = set()
    counts = {}
    for name, erasure in asked.items():
        change, _ = present_part(graph, erasure)
        rows = np.unique(graph.rows(change.nodes))
        rows = rows[~gone_nodes[rows]]
        spans = [np.arange(*np.searchsorted(graph.src, [r, r + 1])) for r in rows]
        spans += [by_target[slice(*np.searchsorted(targets, [r, r + 1]))] for r in rows]
        edges = np.unique(np.concatenate([graph.edge_positions(change.edges), *spans]))
        edges = edges[~gone_edges[edges]].astype(np.int64)
        named = {
            (node_id, column)
            for node_id, columns in change.features
            for column in (graph.schema.features if columns is None else columns)
        }
        counts[name] = {
            "nodes": len(rows),
            "edges": len(edges),
            "features": len(named - cells),
            "labels": len(set(change.labels) - labels),
        }
        gone_nodes[rows], gone_edges[edges] = True, True
        cells |= named
        labels |= set(change.labels)
    return counts
