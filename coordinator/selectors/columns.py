"""What a predicate may speak of: node columns, and ``id``, ``label`` and ``degree``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.graph import Graph

Array = npt.NDArray[Any]
ColumnKind = Literal["int", "float", "str", "bool", "uuid"]

ARROW_TYPES: dict[ColumnKind, Any] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "uuid": pa.string(),  # in canonical lower-case form
}


@dataclass(frozen=True)
class Column:
    """One column by name; ``nullable`` says whether a cell can be empty."""

    name: str
    kind: ColumnKind
    nullable: bool = False


def predicate_columns(graph: Graph) -> dict[str, Column]:
    """The columns of a graph by name; a node column hides a built-in one of the same name."""
    classes = graph.schema.classes
    label: ColumnKind = "int" if all(isinstance(name, int) for name in classes) else "str"
    built_in = [
        Column("id", graph.schema.id_type),
        Column("label", label, nullable=True),
        Column("degree", "int"),
    ]
    own = [Column(name, kind, kind == "float") for name, kind in graph.schema.node_columns]
    return {column.name: column for column in [*built_in, *own]}


def column_values(graph: Graph, column: Column) -> Any:
    """``[N]`` Arrow array; NaN and a missing label are null.

    The degree counts the edges at a node; in a directed graph those that leave and those that
    arrive.
    """
    kind = ARROW_TYPES[column.kind]
    if column.name in graph.node_columns:
        return pa.array(graph.node_columns[column.name], kind, from_pandas=True)
    if column.name == "id":
        listed = graph.ids.tolist()
        return pa.array(map(str, listed) if column.kind == "uuid" else listed, kind)
    if column.name == "degree":
        ends = np.concatenate([graph.src, graph.dst])
        return pa.array(np.bincount(ends, minlength=graph.num_nodes), kind)
    classes = pa.array(graph.schema.classes, kind)
    return classes.take(pa.array(graph.y, mask=graph.y < 0))
