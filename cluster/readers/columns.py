"""Columns of a graph: what comes in beside the features, turned into plain typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import GraphError
from cluster.schema import ColumnType, Schema

Array = npt.NDArray[Any]


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


def plain_list(values: Any) -> list[Any]:
    """Python values: NumPy scalars in a list become int, float, bool or str."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [item.item() if isinstance(item, np.generic) else item for item in listed]


def plain_labels(values: Any) -> list[Any]:
    """Labels as plain values; a whole float becomes an int."""
    labels = plain_list(values)
    if any(isinstance(label, list | tuple | np.ndarray) for label in labels):
        raise GraphError("labels must be one value a node; reshape them to [nodes]")
    return [
        int(label) if isinstance(label, float) and label.is_integer() else label for label in labels
    ]


def id_array(values: Any) -> Array:
    """Int64 where every value is an int that fits, else object."""
    listed = values if isinstance(values, np.ndarray) else plain_list(values)
    if isinstance(listed, np.ndarray) and listed.dtype.kind == "i":
        return listed.astype(np.int64)
    listed = plain_list(listed)
    fits = all(type(item) is int and -(2**63) <= item < 2**63 for item in listed)
    array = np.empty(len(listed), np.int64 if fits else object)
    array[:] = listed
    return array


def check_columns(schema: Schema, columns: Columns) -> None:
    """Refuse columns other than the declared ones."""
    declared: dict[str, tuple[Any, Any]] = {
        "edge weights": (schema.edge_weight, columns.weight is not None),
        "node columns": ({n for n, _ in schema.node_columns}, set(columns.node)),
        "edge columns": ({n for n, _ in schema.edge_columns}, set(columns.edge)),
    }
    for what, (wanted, given) in declared.items():
        if wanted != given:
            raise GraphError(
                f"{what}: the schema declares {_spoken(wanted)}, the data has {_spoken(given)}; "
                "read the declared columns, or declare the others"
            )


def _spoken(columns: bool | set[str]) -> str:
    if isinstance(columns, bool):
        return "some" if columns else "none"
    return str(sorted(columns)) if columns else "none"


def check_lengths(kind: str, columns: Mapping[str, Array | None], length: int) -> None:
    """Refuse columns that are not as long as their records."""
    for name, column in columns.items():
        if column is not None and len(column) != length:
            raise GraphError(
                f"{kind} column {name!r} has {len(column)} rows for {length} {kind}s; "
                "give one value each"
            )


def typed_weight(weight: Any) -> Array:
    """``[E]`` float32, finite and not negative."""
    array = np.asarray(weight, np.float32) + np.float32(0)
    if not np.isfinite(array).all() or (array < 0).any():
        raise GraphError("edge weights must be finite and not negative; mend or drop those edges")
    return array


def column_type(name: str, column: Any) -> ColumnType:
    """The schema's name for a column's type."""
    kind = np.asarray(column).dtype.kind
    types: dict[str, ColumnType] = {"i": "int", "u": "int", "f": "float", "b": "bool"}
    types |= {"U": "str", "O": "str", "T": "str"}
    if kind not in types:
        raise GraphError(f"column {name!r} has type {kind!r}; use int, float, bool or str")
    return types[kind]


def typed_column(name: str, column: Any, kind: ColumnType) -> Array:
    """The column as int64, float64, bool, or an object array of str (None becomes empty)."""
    if kind == "str":
        values = np.empty(len(column), object)
        values[:] = ["" if item is None else str(item) for item in plain_list(column)]
        return values
    dtype = {"int": np.int64, "float": np.float64, "bool": np.bool_}[kind]
    source = np.asarray(column)
    try:
        with np.errstate(invalid="ignore"):
            typed: Array = source.astype(dtype)
    except (TypeError, ValueError) as error:
        raise GraphError(f"column {name!r} is declared {kind}: {error}; mend the column") from error
    if kind != "float" and source.dtype.kind in "fO" and not np.array_equal(typed, source):
        raise GraphError(
            f"column {name!r} is declared {kind} and has empty cells or other values; "
            "fill them or declare another type"
        )
    return typed
