"""Arrays to Graph: the one place where records are validated and put in canonical order."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cluster.digest import NodeId
from cluster.errors import GraphError, shorten
from cluster.graph import UNLABELLED, Graph
from cluster.schema import ClassName, ColumnType, IdType, Layout, Schema

Array = npt.NDArray[Any]


class GraphWarning(UserWarning):
    """The reader changed something harmless (dropped self loops, merged duplicates)."""


@dataclass(frozen=True)
class Policy:
    """What to do with self loops (models add their own) and repeated edges."""

    self_loops: Literal["drop", "error"] = "drop"
    duplicate_edges: Literal["merge", "error"] = "merge"


@dataclass(frozen=True)
class Columns:
    """Optional columns beside ids, features and labels, each as long as its records."""

    weight: Array | None = None
    node: Mapping[str, Array] = field(default_factory=dict)
    edge: Mapping[str, Array] = field(default_factory=dict)

    def take(self, positions: Array) -> Columns:
        """The edge part of these columns at the given positions."""
        return Columns(
            None if self.weight is None else self.weight[positions],
            self.node,
            {name: column[positions] for name, column in self.edge.items()},
        )


def from_arrays(
    edge_index: Any,
    x: Any,
    y: Any = None,
    *,
    ids: Sequence[NodeId] | Array | None = None,
    schema: Schema | None = None,
    directed: bool = False,
    columns: Columns | None = None,
    policy: Policy | None = None,
) -> Graph:
    """Build a graph from arrays.

    Args:
        edge_index: ``[2, E]`` row numbers (source, target); for an undirected graph one direction
            or both.
        x: ``[N, F]`` features, a dense array or a SciPy sparse matrix; without a schema the
            container decides the layout.
        y: ``[N]`` labels: class values (int or str), None or a negative number where unlabelled.
        ids: ``[N]`` external ids (all int, all str or all UUID); row numbers when left out.
        schema: declared schema; made from these arrays when left out.
        directed: whether edges have a direction (only without a schema).
        columns: edge weights and extra columns; they must be the ones the schema declares.
        policy: what to do with self loops and duplicate edges.

    Raises:
        GraphError: the data breaks a rule; the message lists the offenders and the remedy.
    """
    columns, policy = columns or Columns(), policy or Policy()
    ids_list = list(range(_num_rows(x))) if ids is None else _plain_list(ids)
    if not ids_list:
        raise GraphError("the graph has no nodes; check the path and the id column")
    if len(ids_list) != _num_rows(x):
        raise GraphError(f"{len(ids_list)} ids for {_num_rows(x)} feature rows; give one id a row")
    labels: list[Any] = [None] * len(ids_list) if y is None else _plain_list(y)
    if len(labels) != len(ids_list):
        raise GraphError(
            f"{len(labels)} labels for {len(ids_list)} nodes; give one a node, or None"
        )
    if schema is None:
        schema = infer_schema(ids_list, x, labels, columns, directed=directed)
    _check_columns(schema, columns)
    ids_array, order = _canonical_ids(ids_list, schema.id_type)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.arange(len(order))
    src, dst, edge_columns = _canonical_edges(
        edge_index, inverse, ids_array, schema, columns, policy
    )
    return Graph(
        schema=schema,
        ids=ids_array,
        node_ids=np.arange(len(order)),
        x=_canonical_features(x, schema, ids_list)[order],
        y=_class_indices(labels, schema, ids_list)[order],
        src=src,
        dst=dst,
        weight=edge_columns.weight,
        node_columns={
            name: _typed(columns.node[name], kind)[order] for name, kind in schema.node_columns
        },
        edge_columns=edge_columns.edge,
    )


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
        node_columns=tuple((name, _column_type(name, col)) for name, col in columns.node.items()),
        edge_columns=tuple((name, _column_type(name, col)) for name, col in columns.edge.items()),
        nominal_nodes=len(ids),
    )


def _num_rows(x: Any) -> int:
    if getattr(x, "ndim", 0) != 2:
        raise GraphError("features must be a matrix [nodes, columns]; reshape them")
    return int(x.shape[0])


def _plain_list(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


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
    matrix = sp.csr_matrix(x, dtype=np.float32) if sparse else _dense(x)
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
        position = index.get(
            int(label) if isinstance(label, float) and label.is_integer() else label
        )
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
    pairs = np.asarray(edge_index, np.int64).reshape(2, -1)
    outside = np.flatnonzero(((pairs < 0) | (pairs >= len(ids))).any(axis=0))
    if len(outside):
        shown = [tuple(pairs[:, i].tolist()) for i in outside[:10].tolist()]
        raise GraphError(
            f"{len(outside)} edges have an end that is not a node row (0 to {len(ids) - 1}): "
            f"{shorten(shown)}; add the nodes or drop the edges"
        )
    src, dst = inverse[pairs[0]], inverse[pairs[1]]
    columns = Columns(
        None if columns.weight is None else _typed_weight(columns.weight),
        columns.node,
        {name: _typed(columns.edge[name], kind) for name, kind in schema.edge_columns},
    )
    _check_lengths(columns, len(src))
    loops = np.flatnonzero(src == dst)
    if len(loops):
        _refuse_or_warn(
            policy.self_loops, [ids[i] for i in src[loops].tolist()], "self loops", "dropped"
        )
        kept = np.flatnonzero(src != dst)
        src, dst, columns = src[kept], dst[kept], columns.take(kept)
    one_way = _first_positions(src, dst)
    repeats = len(src) - len(one_way)
    if repeats:
        again = np.setdiff1d(np.arange(len(src)), one_way)
        pairs_again = [(ids[src[i]], ids[dst[i]]) for i in again.tolist()]
        _refuse_or_warn(policy.duplicate_edges, pairs_again, "duplicate edges", "merged")
    if not schema.directed:
        src, dst = np.minimum(src, dst), np.maximum(src, dst)
    _check_agreement(src, dst, columns, ids)
    first = _first_positions(src, dst)
    return src[first], dst[first], columns.take(first)


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
        sorted_column = column[order]
        differ = np.flatnonzero(same & (sorted_column[1:] != sorted_column[:-1]))
        if len(differ):
            at = order[differ]
            pairs = [(ids[src[i]], ids[dst[i]]) for i in at.tolist()]
            raise GraphError(
                f"{len(pairs)} repeated edges disagree in column {name!r}: {shorten(pairs)}; "
                "keep one row for each edge"
            )


def _refuse_or_warn(policy: str, items: list[Any], what: str, done: str) -> None:
    text = f"{len(items)} {what}: {shorten(items)}"
    if policy == "error":
        raise GraphError(f"{text}; drop them, or allow it with Policy(...)")
    warnings.warn(f"{text}; {done}", GraphWarning, stacklevel=5)


def _check_columns(schema: Schema, columns: Columns) -> None:
    declared = {
        "edge weights": (schema.edge_weight, columns.weight is not None),
        "node columns": ({n for n, _ in schema.node_columns}, set(columns.node)),
        "edge columns": ({n for n, _ in schema.edge_columns}, set(columns.edge)),
    }
    for what, (wanted, given) in declared.items():
        if wanted != given:
            raise GraphError(f"{what}: the schema declares {wanted}, the data has {given}")


def _check_lengths(columns: Columns, num_edges: int) -> None:
    for name, column in [("weight", columns.weight), *columns.edge.items()]:
        if column is not None and len(column) != num_edges:
            raise GraphError(f"edge column {name!r} has {len(column)} rows for {num_edges} edges")


def _typed_weight(weight: Any) -> Array:
    array = np.asarray(weight, np.float32) + np.float32(0)
    if not np.isfinite(array).all() or (array < 0).any():
        raise GraphError("edge weights must be finite and not negative; mend or drop those edges")
    return array


def _column_type(name: str, column: Any) -> ColumnType:
    kind = np.asarray(column).dtype.kind
    types: dict[str, ColumnType] = {"i": "int", "u": "int", "f": "float", "b": "bool"}
    types |= {"U": "str", "O": "str", "T": "str"}
    if kind not in types:
        raise GraphError(f"column {name!r} has type {kind!r}; use int, float, bool or str")
    return types[kind]


def _typed(column: Any, kind: ColumnType) -> Array:
    if kind == "str":
        values = np.empty(len(column), object)
        values[:] = ["" if item is None else str(item) for item in _plain_list(column)]
        return values
    dtype = {"int": np.int64, "float": np.float64, "bool": np.bool_}[kind]
    return np.asarray(column).astype(dtype)
