"""A graph as 256 id-hash segments: what is digested, stored, and rewritten by an erasure.

A node lies in the segment of its id hash; an edge in the segment of its smaller end. The graph's
key is a hash over the schema and the segment digests, so an erasure re-hashes only what it touched.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.digest import Digest, digest
from cluster.graph import Graph
from cluster.schema import Schema

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

NUM_SEGMENTS = 256


def graph_digest(graph: Graph) -> Digest:
    """Key of the graph: schema and surviving records, nothing of their history."""
    return digest("graph", graph.schema.digest, segment_digests(graph))


def segment_digests(graph: Graph) -> list[Digest]:
    """Digest of every segment, 256 of them; only the ones not known yet are computed."""
    missing = [s for s in range(NUM_SEGMENTS) if s not in graph.segment_cache]
    for segment, tensors in cut_segments(graph, missing):
        graph.segment_cache[segment] = digest("segment", tensors)
    return [graph.segment_cache[s] for s in range(NUM_SEGMENTS)]


def cut_segments(graph: Graph, segments: Iterable[int]) -> Iterable[tuple[int, Tensors]]:
    """Yield ``(segment, tensors)`` for the wanted segments, records in canonical order."""
    of_node = graph.segments
    of_edge = of_node[np.minimum(graph.src, graph.dst)]
    node_order = np.argsort(of_node, kind="stable")
    edge_order = np.argsort(of_edge, kind="stable")
    bounds = np.arange(NUM_SEGMENTS + 1)
    node_start = np.searchsorted(of_node[node_order], bounds)
    edge_start = np.searchsorted(of_edge[edge_order], bounds)
    for s in segments:
        nodes = node_order[node_start[s] : node_start[s + 1]]
        edges = edge_order[edge_start[s] : edge_start[s + 1]]
        yield s, _segment_tensors(graph, nodes, edges)


def _segment_tensors(graph: Graph, nodes: Array, edges: Array) -> Tensors:
    schema = graph.schema
    tensors = {"y": graph.y[nodes]}
    tensors |= pack_column("id", graph.ids[nodes], schema.id_type)
    tensors |= pack_column("src", graph.ids[graph.src[edges]], schema.id_type)
    tensors |= pack_column("dst", graph.ids[graph.dst[edges]], schema.id_type)
    tensors |= pack_features(graph.x[nodes])
    if graph.weight is not None:
        tensors["weight"] = graph.weight[edges]
    for name, kind in schema.node_columns:
        tensors |= pack_column(f"node.{name}", graph.node_columns[name][nodes], kind)
    for name, kind in schema.edge_columns:
        tensors |= pack_column(f"edge.{name}", graph.edge_columns[name][edges], kind)
    return tensors


def graph_from_segments(schema: Schema, segments: Iterable[Mapping[str, Array]]) -> Graph:
    """Put stored segments together again; inverse of :func:`cut_segments`."""
    parts = list(segments)

    def column(name: str, kind: str) -> Array:
        pieces = [unpack_column(name, part, kind) for part in parts]
        return np.concatenate(pieces) if pieces else unpack_column(name, {}, kind)

    def plain(name: str, dtype: Any) -> Array:
        return np.concatenate([part[name] for part in parts] or [np.empty(0, dtype)])

    ids = column("id", schema.id_type)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    src = _positions(ids, column("src", schema.id_type))
    dst = _positions(ids, column("dst", schema.id_type))
    edge_order = np.lexsort((dst, src))
    return Graph(
        schema=schema,
        ids=ids,
        x=unpack_features(parts, schema)[order],
        y=plain("y", np.int32)[order],
        src=src[edge_order],
        dst=dst[edge_order],
        weight=plain("weight", np.float32)[edge_order] if schema.edge_weight else None,
        node_columns={
            name: column(f"node.{name}", kind)[order] for name, kind in schema.node_columns
        },
        edge_columns={
            name: column(f"edge.{name}", kind)[edge_order] for name, kind in schema.edge_columns
        },
    )


def _positions(ids: Array, values: Array) -> Array:
    """``[K]`` position of every value in the ascending ``ids``, all of which are there."""
    if ids.dtype != object:
        return np.searchsorted(ids, values)
    row_of = {node_id: row for row, node_id in enumerate(ids.tolist())}
    return np.asarray([row_of[node_id] for node_id in values.tolist()], np.int64)


# ---- columns as plain tensors

_DTYPES = {"int": np.int64, "float": np.float64, "bool": np.bool_}


def pack_column(name: str, values: Array, kind: str) -> Tensors:
    """Turn a typed column into tensors (strings and UUIDs become bytes plus lengths)."""
    if kind in _DTYPES:
        return {name: np.asarray(values, _DTYPES[kind])}
    raw = [v.bytes if kind == "uuid" else v.encode() for v in values.tolist()]
    return {
        f"{name}.bytes": np.frombuffer(b"".join(raw), np.uint8),
        f"{name}.lengths": np.asarray([len(item) for item in raw], np.int64),
    }


def unpack_column(name: str, tensors: Mapping[str, Array], kind: str) -> Array:
    """Inverse of :func:`pack_column`; an absent column is empty."""
    if kind in _DTYPES:
        return np.asarray(tensors.get(name, np.empty(0)), _DTYPES[kind])
    lengths = tensors.get(f"{name}.lengths", np.empty(0, np.int64))
    blob = tensors.get(f"{name}.bytes", np.empty(0, np.uint8)).tobytes()
    ends = np.cumsum(lengths).tolist()
    column = np.empty(len(lengths), object)
    for i, (end, length) in enumerate(zip(ends, lengths.tolist(), strict=True)):
        raw = blob[end - length : end]
        column[i] = uuid.UUID(bytes=raw) if kind == "uuid" else raw.decode()
    return column


def pack_features(x: Any) -> Tensors:
    """Feature rows as tensors: one dense matrix, or the three CSR arrays."""
    if not sp.issparse(x):
        return {"x": np.asarray(x, np.float32)}
    return {
        "x.data": x.data.astype(np.float32, copy=False),
        "x.indices": x.indices.astype(np.int64),
        "x.indptr": x.indptr.astype(np.int64),
    }


def unpack_features(parts: list[Mapping[str, Array]], schema: Schema) -> Any:
    """Inverse of :func:`pack_features` over consecutive row blocks."""
    width = schema.num_features
    if schema.layout == "dense":
        return np.concatenate([part["x"] for part in parts] or [np.empty((0, width), np.float32)])
    counts = [np.diff(part["x.indptr"]) for part in parts]
    indptr = np.concatenate([np.zeros(1, np.int64), *counts]).cumsum()
    indices = np.concatenate([part["x.indices"] for part in parts] or [np.empty(0, np.int64)])
    data = np.concatenate([part["x.data"] for part in parts] or [np.empty(0, np.float32)])
    return sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, width))
