"""Graphs and partitions as artefacts: how they are written to a store and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.graph import Graph
from cluster.halo import Halo
from cluster.partition import Partition
from cluster.schema import Schema
from cluster.segments import (
    cut_segments,
    graph_digest,
    graph_from_segments,
    pack_column,
    segment_digests,
    unpack_column,
)
from cluster.store import Blob, Store

SEGMENT, GRAPH, PARTITION = "segment", "graph", "partition"


def graph_blobs(graph: Graph, stored: Mapping[str, Any] | set[str]) -> dict[tuple[str, str], Blob]:
    """The blobs that hold ``graph`` and are not among the ``stored`` segment keys."""
    digests = segment_digests(graph)
    missing = [s for s, key in enumerate(digests) if key not in stored]
    blobs = {
        (SEGMENT, str(digests[s])): Blob(tensors)
        for s, tensors in cut_segments(graph, missing)
        if len(tensors["y"])
    }
    used = set(graph.segments.tolist())
    manifest = {
        "schema": graph.schema.to_json(),
        "segments": {str(s): digests[s] for s in sorted(used)},
    }
    blobs[GRAPH, str(graph_digest(graph))] = Blob({}, manifest)
    return blobs


def load_graph(store: Store, graph_key: str) -> Graph:
    """Read a graph back from its segments.

    Args:
        store: where it lies.
        graph_key: key of the graph.

    Raises:
        CorruptArtefactError: a segment is missing or changed.
    """
    manifest = store.get(GRAPH, graph_key).meta
    segments = [store.get(SEGMENT, key).tensors for key in manifest["segments"].values()]
    return graph_from_segments(Schema.from_json(manifest["schema"]), segments)


def partition_blob(partition: Partition) -> Blob:
    """A partition as a blob; its key is ``partition.key``."""
    tensors = pack_column("id", partition.ids, partition.id_type) | {"shards": partition.shards}
    meta = {
        "num_shards": partition.num_shards,
        "guarantee": partition.guarantee,
        "id_type": partition.id_type,
        "names": list(partition.names),
        "info": dict(partition.info),
    }
    halo = partition.halo
    if halo is not None:
        tensors["halo.thresholds"] = halo.thresholds
        if halo.arcs is not None:
            tensors["halo.arcs"] = halo.arcs
        meta["halo"] = {"hops": halo.hops, "labels": halo.labels, "seed": halo.seed}
    return Blob(tensors, meta)


def load_partition(store: Store, key: str) -> Partition:
    """Read a partition back."""
    blob = store.get(PARTITION, key)
    meta = blob.meta
    return Partition(
        unpack_column("id", blob.tensors, meta["id_type"]),
        blob.tensors["shards"],
        meta["num_shards"],
        meta["guarantee"],
        meta["id_type"],
        tuple(meta["names"]),
        meta["info"],
        _load_halo(blob),
    )


def _load_halo(blob: Blob) -> Halo | None:
    meta = blob.meta.get("halo")
    if meta is None:
        return None
    arcs = blob.tensors.get("halo.arcs")
    return Halo(
        meta["hops"],
        blob.tensors["halo.thresholds"],
        arcs,
        labels=meta["labels"],
        seed=meta["seed"],
    )
