"""What a graph's records look like: declared once, never learned again from the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

from cluster.digest import Digest, digest
from cluster.errors import GraphError

IdType = Literal["int", "str", "uuid"]
Layout = Literal["dense", "sparse"]
ColumnType = Literal["int", "float", "str", "bool"]
ClassName = int | str

FILL_VALUE = 0.0  # what an erased feature becomes


@dataclass(frozen=True)
class Schema:
    """Declared shape of a graph; it stays when rows go, and can be handed to any reader.

    Attributes:
        id_type: type of the external ids.
        features: feature column names, in order.
        classes: label values; a label's index in this tuple is what models see.
        directed: whether an edge ``(u, v)`` differs from ``(v, u)``.
        layout: ``dense`` float32 rows or ``sparse`` CSR; decides the arithmetic, so it is declared.
        edge_weight: whether edges carry a float32 weight that message passing reads.
        node_columns: further node columns as ``(name, type)``; no submodel reads them.
        edge_columns: further edge columns as ``(name, type)``; no submodel reads them.
        nominal_nodes: number of nodes at creation; capacities and sampling rates derive from it,
            so that they do not move when rows go.
    """

    id_type: IdType
    features: tuple[str, ...]
    classes: tuple[ClassName, ...]
    directed: bool = False
    layout: Layout = "dense"
    edge_weight: bool = False
    node_columns: tuple[tuple[str, ColumnType], ...] = ()
    edge_columns: tuple[tuple[str, ColumnType], ...] = ()
    nominal_nodes: int = 1

    def __post_init__(self) -> None:
        if len(set(self.features)) != len(self.features):
            raise GraphError("schema.features has a column name twice; rename one")
        if len(set(self.classes)) != len(self.classes):
            raise GraphError("schema.classes has a class twice; remove one")

    @property
    def num_features(self) -> int:
        """F, the width of a feature row."""
        return len(self.features)

    @property
    def num_classes(self) -> int:
        """C, the number of declared classes."""
        return len(self.classes)

    @cached_property
    def digest(self) -> Digest:
        """Digest of every declared field."""
        return digest("schema", self.to_json())

    @cached_property
    def training_digest(self) -> Digest:
        """Digest of the fields that a shard's training depends on."""
        declared = (self.features, self.classes, self.directed, self.layout, self.edge_weight)
        return digest("training-schema", declared)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Inverse of :meth:`to_json`."""
        values = dict(data)
        for name in ("features", "classes"):
            values[name] = tuple(values[name])
        for name in ("node_columns", "edge_columns"):
            values[name] = tuple((str(key), kind) for key, kind in values[name])
        return _known(cls(**values))


_latest: list[Schema] = []


def _known(schema: Schema) -> Schema:
    """The schema read last, if it is the same: its digests are known then."""
    if not _latest or _latest[0] != schema:
        _latest[:] = [schema]
    return _latest[0]
