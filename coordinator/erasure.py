"""Erasure: what a user asks to forget; what of it is here, gone already, or unknown."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.digest import NodeId
from cluster.errors import GraphError
from cluster.graph import Change, Edge, Graph
from cluster.ids import id_from_json, id_to_json


@dataclass(frozen=True)
class Erasure:
    """Records to forget, by the user's own ids.

    Attributes:
        nodes: nodes, with all their edges.
        edges: ``(u, v)`` pairs; in an undirected graph both directions go.
        features: node id -> feature columns (None: every column); they become the fill value.
        labels: nodes that become unlabelled.
    """

    nodes: Sequence[NodeId] = ()
    edges: Sequence[Edge] = ()
    features: Mapping[NodeId, Sequence[str] | None] = field(default_factory=dict)
    labels: Sequence[NodeId] = ()

    def __post_init__(self) -> None:
        for name in ("nodes", "labels", "edges"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise GraphError(f"Erasure.{name} is {value!r}; give a list")
            object.__setattr__(self, name, tuple(dict.fromkeys(map(_plain, value))))
        for edge in self.edges:
            if not isinstance(edge, tuple) or len(edge) != 2:
                raise GraphError(f"Erasure.edges holds {edge!r}; give pairs (u, v)")
        if not isinstance(self.features, Mapping):
            raise GraphError(f"Erasure.features is {self.features!r}; give id -> columns")
        features = {_plain(i): _column_names(names) for i, names in self.features.items()}
        object.__setattr__(self, "features", features)
        ends = [node_id for edge in self.edges for node_id in edge]
        for node_id in (*self.nodes, *self.labels, *features, *ends):
            _require_id(node_id)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked."""
        return not (self.nodes or self.edges or self.features or self.labels)

    @property
    def kind(self) -> str:
        """nodes, edges, features or labels; mixed where it names several kinds."""
        named = [name for name in ("nodes", "edges", "features", "labels") if getattr(self, name)]
        return named[0] if len(named) == 1 else "mixed"

    @staticmethod
    def merge(erasures: Iterable[Erasure]) -> Erasure:
        """One erasure that asks for all of them."""
        nodes: list[NodeId] = []
        edges: list[Edge] = []
        labels: list[NodeId] = []
        features: dict[NodeId, tuple[str, ...] | None] = {}
        for item in erasures:
            nodes += item.nodes
            edges += item.edges
            labels += item.labels
            for node_id, names in item.features.items():
                before = features.get(node_id, ())
                both = None if names is None or before is None else (*before, *names)
                features[node_id] = both
        return Erasure(nodes, edges, features, labels)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with typed ids."""
        return {
            "nodes": [id_to_json(i) for i in self.nodes],
            "edges": [[id_to_json(u), id_to_json(v)] for u, v in self.edges],
            "features": [
                [id_to_json(i), None if names is None else list(names)]
                for i, names in self.features.items()
            ],
            "labels": [id_to_json(i) for i in self.labels],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Erasure:
        """Inverse of :meth:`to_json`."""
        return cls(
            [id_from_json(i) for i in data["nodes"]],
            [(id_from_json(u), id_from_json(v)) for u, v in data["edges"]],
            {id_from_json(i): names for i, names in data["features"]},
            [id_from_json(i) for i in data["labels"]],
        )


def _plain(value: Any) -> Any:
    """NumPy scalars to Python, lists to tuples."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value.item() if hasattr(value, "item") else value


def _column_names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, str):
        raise GraphError(f"Erasure.features names the columns {names!r}; give a list, or None")
    return None if names is None else tuple(dict.fromkeys(names))


def _require_id(value: Any) -> None:
    is_id = isinstance(value, int | str | uuid.UUID) and not isinstance(value, bool)
    if not is_id or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise GraphError(f"{value!r} is not an id; ids are int (64 bits), str or UUID")


def present_part(graph: Graph, erasure: Erasure) -> tuple[Change, Erasure]:
    """Split an erasure into what the graph holds and what it does not.

    Raises:
        GraphError: a feature column is not in the schema.
    """
    known_columns = set(graph.schema.features)
    for names in erasure.features.values():
        unknown = [name for name in names or () if name not in known_columns]
        if unknown:
            raise GraphError(
                f"no feature column {unknown[:10]}; the schema has "
                f"{len(known_columns)} columns, the first are {list(graph.schema.features[:5])}"
            )
    has, has_edge = graph.has_node, graph.has_edge
    change = Change(
        tuple(i for i in erasure.nodes if has(i)),
        tuple(e for e in erasure.edges if has_edge(*e)),
        tuple((i, _names(names)) for i, names in erasure.features.items() if has(i)),
        tuple(i for i in erasure.labels if has(i)),
    )
    absent = Erasure(
        [i for i in erasure.nodes if not has(i)],
        [e for e in erasure.edges if not has_edge(*e)],
        {i: names for i, names in erasure.features.items() if not has(i)},
        [i for i in erasure.labels if not has(i)],
    )
    return change, absent


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
