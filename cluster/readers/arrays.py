"""Arrays to Graph: the one place where records are validated and put in canonical order."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.digest import NodeId
from cluster.errors import GraphError, shorten
from cluster.graph import UNLABELLED, Graph
from cluster.readers.columns import (
    Columns,
    check_columns,
    check_lengths,
    column_type,
    id_array,
    plain_labels,
    plain_list,
    typed_column,
    typed_weight,
)
from cluster.schema import ClassName, IdType, Layout, Schema

Array = npt.NDArray[Any]


class GraphWarning(UserWarning):
    """The reader changed something harmless (dropped self loops, merged duplicates)."""


@dataclass(frozen=True)
class Policy:
    """What to do with self loops (models add their own) and repeated edges."""

    self_loops: Literal["drop", "error"] = "drop"
    duplicate_edges: Literal["merge", "error"] = "merge"


def from_arrays(
    edge_index: Any,
    x: Any,
    y: Any = None,
    *,
    ids: Sequence[NodeId] | Array | None = None,
    schema: Schema | None = None,
    directed: bool = False,
    feature_names: Sequence[str] | None = None,
    columns: Columns | None = None,
    policy: Policy | None = None,
) -> Graph:
    """Build a graph from arrays.

    Args:
        edge_index: ``[2, E]`` row numbers (source, target); for an undirected graph one direction
            or both.
        x: ``[N, F]`` features, a dense array or a SciPy sparse matrix; without a schema the
            container decides the layout.
        y: ``[N]`` labels: class values (int or str); None, NaN or a negative number where
            unlabelled.
        ids: ``[N]`` external ids (all int, all str or all UUID); row numbers when left out.
        schema: declared schema; made from these arrays when left out.
        directed: whether edges have a direction (only without a schema).
        feature_names: names of the feature columns (only without a schema); f0, f1, ... when
            left out.
        columns: edge weights and extra columns; they must be the ones the schema declares.
        policy: what to do with self loops and duplicate edges.

    Raises:
        GraphError: the data breaks a rule; the message lists the offenders and the remedy.
    """
    columns, policy = columns or Columns(), policy or Policy()
    ids_list = list(range(_num_rows(x))) if ids is None else plain_list(ids)
    if not ids_list:
        raise GraphError("the graph has no nodes; check the path and the id column")
    if len(ids_list) != _num_rows(x):
        raise GraphError(f"{len(ids_list)} ids for {_num_rows(x)} feature rows; give one id a row")
    labels: list[Any] = [None] * len(ids_list) if y is None else plain_labels(y)
    if len(labels) != len(ids_list):
        raise GraphError(
            f"{len(labels)} labels for {len(ids_list)} nodes; give one a node, or None"
        )
    if schema is None:
        schema = infer_schema(ids_list, x, labels, columns, directed=directed)
        if feature_names is not None:
            schema = replace(schema, features=tuple(feature_names))
    check_columns(schema, columns)
    check_lengths("node", columns.node, len(ids_list))
    ids_array, order = _canonical_ids(ids_list, schema.id_type)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.arange(len(order))
    src, dst, edge_columns = _canonical_edges(
        edge_index, inverse, ids_array, schema, columns, policy
    )
    return Graph(
        schema=schema,
        ids=ids_array,
        x=_canonical_features(x, schema, ids_list)[order],
        y=_class_indices(labels, schema, ids_list)[order],
        src=src,
        dst=dst,
        weight=edge_columns.weight,
        node_columns={
            name: typed_column(name, columns.node[name], kind)[order]
            for name, kind in schema.node_columns
        },
        edge_columns=edge_columns.edge,
    )


def edge_rows(ids: Sequence[NodeId] | Array, src: Any, dst: Any) -> Array:
    """``[2, E]`` int64 rows of edge ends that are given as external ids.

    Raises:
        GraphError: an end is no node id; the message lists the first of them.
    """
    ends = np.concatenate([id_array(src), id_array(dst)])
    known = id_array(ids)
    if known.dtype.kind == "i" and ends.dtype.kind == "i" and len(known):
        order = np.argsort(known, kind="stable")
        rows = order[np.searchsorted(known[order[:-1]], ends)]
        rows = np.where(known[rows] == ends, rows, -1)
    else:
        row_of = {node_id: row for row, node_id in enumerate(known.tolist())}
        rows = np.asarray([row_of.get(end, -1) for end in ends.tolist()], np.int64)
    unknown = list(dict.fromkeys(ends[rows < 0].tolist()))
    if unknown:
        raise GraphError(
            f"{len(unknown)} edge ends are not among the node ids: {shorten(unknown)}; add the "
            "nodes, drop the edges, or give both the same type (1 is not '1')"
        )
    return rows.astype(np.int64).reshape(2, -1)


def infer_schema(
    ids: Sequence[NodeId], x: Any, labels: Sequence[Any], columns: Columns, *, directed: bool
) -> Schema:
    """Declare a schema from the arrays a graph is created with."""
    present = {label for label in labels if not _is_unlabelled(label)}
    if all(isinstance(label, int) for label in present):
        classes: tuple[ClassName, ...] = tuple(range(max(present, default=-1) + 1))
    else:
        classes = tuple(sorted(map(str, present)))
    layout: Layout = "sparse" if sp.issparse(x) else "dense"
    return Schema(
        id_type=_id_type(ids),
        features=tuple(f"f{i}" for i in range(x.shape[1])),
        classes=classes,
        directed=directed,
        layout=layout,
        edge_weight=columns.weight is not None,
        node_columns=tuple((name, column_type(name, col)) for name, col in columns.node.items()),
        edge_columns=tuple((name, column_type(name, col)) for name, col in columns.edge.items()),
        nominal_nodes=len(ids),
    )


def _num_rows(x: Any) -> int:
    if getattr(x, "ndim", 0) != 2:
        raise GraphError("features must be a matrix [nodes, columns]; reshape them")
    return int(x.shape[0])


def _id_type(ids: Sequence[NodeId]) -> IdType:
    kinds = {type(i) for i in ids}
    if kinds <= {int}:
        return "int"
    if kinds <= {str}:
        return "str"
    if kinds <= {uuid.UUID}:
        return "uuid"
    raise GraphError(
        f"ids have types {sorted(kind.__name__ for kind in kinds)}; "
        "use int, str or UUID, one type for all"
    )


def _canonical_ids(ids: list[NodeId], id_type: IdType) -> tuple[Array, Array]:
    """Ids in ascending order, and the order that sorts them."""
    if _id_type(ids) != id_type:
        raise GraphError(f"ids are {_id_type(ids)}, the schema says {id_type}; convert the column")
    if id_type == "int" and not all(-(2**63) <= int(i) < 2**63 for i in ids):
        raise GraphError("an int id does not fit 64 bits; use strings")
    array = np.empty(len(ids), np.int64 if id_type == "int" else object)
    array[:] = ids
    order = np.argsort(array, kind="stable")
    array = array[order]
    repeated = sorted(set(array[1:][array[1:] == array[:-1]].tolist()))
    if repeated:
        raise GraphError(
            f"{len(repeated)} node ids occur more than once: {shorten(repeated)}; "
            "keep one row for each"
        )
    return array, order


def _canonical_features(x: Any, schema: Schema, ids: Sequence[NodeId]) -> Any:
    if x.shape[1] != schema.num_features:
        raise GraphError(
            f"{x.shape[1]} feature columns, the schema declares {schema.num_features}; "
            "select the declared columns"
        )
    sparse = schema.layout == "sparse"
    matrix: Any = sp.csr_matrix(x, dtype=np.float32) if sparse else _dense(x)
    values = matrix.data if sparse else matrix
    if not np.isfinite(values).all():
        if sparse:
            bad_rows = np.unique(
                np.repeat(np.arange(len(ids)), np.diff(matrix.indptr))[~np.isfinite(values)]
            )
        else:
            bad_rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        bad = [ids[row] for row in bad_rows.tolist()]
        raise GraphError(
            f"{len(bad)} nodes have NaN or infinite features: {shorten(bad)}; impute or drop them"
        )
    if not sparse:
        return matrix + np.float32(0)  # -0.0 becomes 0.0
    matrix = matrix.copy()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def _dense(x: Any) -> Array:
    return np.asarray(x.toarray() if sp.issparse(x) else x, np.float32)


def _is_unlabelled(label: Any) -> bool:
    if label is None or (isinstance(label, float) and label != label):
        return True
    return isinstance(label, int | float) and label < 0


def _class_indices(labels: Sequence[Any], schema: Schema, ids: Sequence[NodeId]) -> Array:
    index = {name: i for i, name in enumerate(schema.classes)}
    y = np.full(len(labels), UNLABELLED, np.int32)
    bad: list[tuple[NodeId, Any]] = []
    for row, label in enumerate(labels):
        if _is_unlabelled(label):
            continue
        position = index.get(label)
        if position is None:
            bad.append((ids[row], label))
        else:
            y[row] = position
    if bad:
        raise GraphError(
            f"{len(bad)} labels are not among the declared classes {schema.classes[:20]}: "
            f"{shorten(bad)} (node, label); mend them or declare the class"
        )
    return y


def _canonical_edges(
    edge_index: Any,
    inverse: Array,
    ids: Array,
    schema: Schema,
    columns: Columns,
    policy: Policy,
) -> tuple[Array, Array, Columns]:
    pairs = _edge_pairs(edge_index)
    outside = np.flatnonzero(((pairs < 0) | (pairs >= len(ids))).any(axis=0))
    if len(outside):
        shown = [tuple(pairs[:, i].tolist()) for i in outside[:10].tolist()]
        raise GraphError(
            f"{len(outside)} edges have an end that is not a node row (0 to {len(ids) - 1}): "
            f"{shorten(shown)}; add the nodes or drop the edges"
        )
    src, dst = inverse[pairs[0]], inverse[pairs[1]]
    columns = Columns(
        None if columns.weight is None else typed_weight(columns.weight),
        columns.node,
        {name: typed_column(name, columns.edge[name], kind) for name, kind in schema.edge_columns},
    )
    check_lengths("edge", {"weight": columns.weight, **columns.edge}, len(src))
    loops = np.flatnonzero(src == dst)
    if len(loops):
        _refuse_or_warn(policy.self_loops, ids[src[loops]].tolist(), "self loops", "dropped")
        kept = np.flatnonzero(src != dst)
        src, dst, columns = src[kept], dst[kept], columns.take(kept)
    one_way = _first_positions(src, dst)
    repeats = len(src) - len(one_way)
    if repeats:
        again = np.setdiff1d(np.arange(len(src)), one_way)
        _refuse_or_warn(
            policy.duplicate_edges, _named(ids, src, dst, again), "duplicate edges", "merged"
        )
    if not schema.directed:
        src, dst = np.minimum(src, dst), np.maximum(src, dst)
    _check_agreement(src, dst, columns, ids)
    first = _first_positions(src, dst)
    return src[first], dst[first], columns.take(first)


def _edge_pairs(edge_index: Any) -> Array:
    pairs = np.asarray(edge_index)
    if not pairs.size:
        return np.empty((2, 0), np.int64)
    if pairs.ndim != 2 or len(pairs) != 2 or pairs.dtype.kind not in "iu":
        raise GraphError(
            f"edge_index has shape {pairs.shape} and type {pairs.dtype}; give integer row "
            "numbers [2, edges], sources in the first row"
        )
    return pairs.astype(np.int64)


def _named(ids: Array, src: Array, dst: Array, positions: Array) -> list[tuple[Any, Any]]:
    """External ids of the edges at the given positions."""
    ends = ids[src[positions]].tolist(), ids[dst[positions]].tolist()
    return list(zip(*ends, strict=True))


def _first_positions(src: Array, dst: Array) -> Array:
    """Position of the first occurrence of every (src, dst), sorted by (src, dst)."""
    order = np.lexsort((dst, src))
    if not len(order):
        return order
    a, b = src[order], dst[order]
    new = np.ones(len(order), bool)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    first: Array = order[new]
    return first


def _check_agreement(src: Array, dst: Array, columns: Columns, ids: Array) -> None:
    """Copies of one edge must carry equal values; otherwise the winner would be arbitrary."""
    values = {**columns.edge}
    if columns.weight is not None:
        values["weight"] = columns.weight
    order = np.lexsort((dst, src))
    same = (src[order][1:] == src[order][:-1]) & (dst[order][1:] == dst[order][:-1])
    for name, column in values.items():
        a, b = column[order][:-1], column[order][1:]
        both_nan = (a != a) & (b != b)
        differ = np.flatnonzero(same & (a != b) & ~both_nan)
        if len(differ):
            pairs = _named(ids, src, dst, order[differ])
            raise GraphError(
                f"{len(pairs)} repeated edges disagree in column {name!r}: {shorten(pairs)}; "
                "keep one row for each edge, or read the graph as directed"
            )


def _refuse_or_warn(policy: str, items: list[Any], what: str, done: str) -> None:
    text = f"{len(items)} {what}: {shorten(items)}"
    if policy == "error":
        raise GraphError(f"{text}; drop them, or allow it with Policy(...)")
    warnings.warn(f"{text}; {done}", GraphWarning, stacklevel=5)
