"""What a tree says of one node: its name digest and its row digest, from plain values.

A row digest is a hash over the digests of four parts, so that one part can be shown while the
others stay closed (:class:`RowOpening`). :mod:`coordinator.evidence.leaves` computes the same from
arrays. Every digest is SHA-256 over a tag and fixed-width or last fields, so no two values collide.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.ids import NodeId, encode_id
from coordinator.evidence.errors import RecordError
from coordinator.evidence.fields import HEX, HEX32, Maybe, require

NAME_TAG, LABEL_TAG, ROW_TAG = b"unweave/name/1\0", b"unweave/label/1\0", b"unweave/row/1\0"
FEATURES_TAG, EDGES_TAG = b"unweave/features/1\0", b"unweave/edges/1\0"

NO_LABEL = -1
NO_LOST = 2**64 - 1  # the content counts no lost neighbours
EDGE_BYTES = 36  # the source's name digest and its float32 weight

_HEAD = struct.Struct(">BQ")  # owned, lost neighbours
_LABEL = struct.Struct(">i")
_WEIGHT = struct.Struct("<f")


def name_digest(node_id: NodeId) -> bytes:
    """32 bytes that stand for an external id."""
    return hashlib.sha256(NAME_TAG + encode_id(node_id)).digest()


def label_digest(class_index: int) -> bytes:
    """Digest of a label as its index among the declared classes, -1 for none."""
    return hashlib.sha256(LABEL_TAG + _LABEL.pack(class_index)).digest()


def features_digest(columns: bytes, values: bytes) -> bytes:
    """Digest of a feature row.

    Args:
        columns: uint32 little-endian column numbers of a sparse row; nothing for a dense one.
        values: float32 little-endian values, ``-0.0`` written as ``0.0``.
    """
    return hashlib.sha256(
        FEATURES_TAG + len(columns).to_bytes(8, "big") + columns + values
    ).digest()


def edges_digest(entries: bytes) -> bytes:
    """Digest of the in-neighbours: 36 bytes each, in the order of their external ids."""
    return hashlib.sha256(EDGES_TAG + entries).digest()


def row_digest(name: bytes, owned: bool, lost: int, parts: Sequence[bytes]) -> bytes:
    """Digest of a node's whole row; ``parts`` are those of label, features and edges."""
    return hashlib.sha256(ROW_TAG + name + _HEAD.pack(owned, lost) + b"".join(parts)).digest()


_OPENING = {
    "owned": bool,
    "lost": Maybe(int),
    "label": {"digest": HEX32, "shown": Maybe(int)},
    "features": {"digest": HEX32, "shown": Maybe({"columns": HEX, "values": HEX})},
    "edges": {"digest": HEX32, "shown": Maybe(HEX)},
}


@dataclass(frozen=True)
class RowOpening:
    """A row with some parts shown and the others closed.

    Attributes:
        owned: whether the shard trains on the node's label (else the row is a halo row).
        lost: neighbours that other shards own, None where the shard does not count them.
        label: digest of the label.
        features: digest of the feature row.
        edges: digest of the in-neighbours.
        shown_label: class index, if shown.
        shown_features: columns and values, if shown.
        shown_edges: entries of the in-neighbours, if shown.
    """

    owned: bool
    lost: int | None
    label: bytes
    features: bytes
    edges: bytes
    shown_label: int | None = None
    shown_features: tuple[bytes, bytes] | None = None
    shown_edges: bytes | None = None

    def digest(self, name: bytes) -> bytes:
        """Row digest that the opening leads to.

        Raises:
            RecordError: a shown part is not what its digest says.
        """
        shown = {
            "label": self.shown_label is None or label_digest(self.shown_label) == self.label,
            "features": self.shown_features is None
            or features_digest(*self.shown_features) == self.features,
            "edges": self.shown_edges is None or edges_digest(self.shown_edges) == self.edges,
        }
        wrong = [part for part, same in shown.items() if not same]
        if wrong:
            raise RecordError(f"the opening shows {wrong} that do not have their digests")
        lost = NO_LOST if self.lost is None else self.lost
        return row_digest(name, self.owned, lost, (self.label, self.features, self.edges))

    def has_edge_from(self, source: NodeId) -> bool:
        """Whether the shown in-neighbours hold ``source``.

        Raises:
            RecordError: the opening does not show them.
        """
        if self.shown_edges is None:
            raise RecordError("the opening does not show the edges; ask the issuer to show them")
        entries = self.shown_edges
        names = {entries[i : i + 32] for i in range(0, len(entries), EDGE_BYTES)}
        return name_digest(source) in names

    def feature(self, column: int) -> float:
        """Value of a shown feature column; an absent column of a sparse row is 0.

        Raises:
            RecordError: the opening does not show the features, or has no such column.
        """
        if self.shown_features is None:
            raise RecordError("the opening does not show the features; ask the issuer to show them")
        columns, values = self.shown_features
        position = column
        if columns:
            numbers = [item for (item,) in struct.iter_unpack("<I", columns)]
            if column not in numbers:
                return 0.0
            position = numbers.index(column)
        if not 0 <= 4 * position < len(values):
            raise RecordError(f"the shown features have no column {column}")
        return float(_WEIGHT.unpack_from(values, 4 * position)[0])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        shown = self.shown_features
        features = None if shown is None else {"columns": shown[0].hex(), "values": shown[1].hex()}
        edges = None if self.shown_edges is None else self.shown_edges.hex()
        return {
            "owned": self.owned,
            "lost": self.lost,
            "label": {"digest": self.label.hex(), "shown": self.shown_label},
            "features": {"digest": self.features.hex(), "shown": features},
            "edges": {"digest": self.edges.hex(), "shown": edges},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RowOpening:
        """Inverse of :meth:`to_json`.

        Raises:
            VerificationError: a field is missing, unknown or malformed.
        """
        require(data, _OPENING, "opening")
        label, features, edges = data["label"], data["features"], data["edges"]
        shown = features["shown"]
        return cls(
            data["owned"],
            data["lost"],
            bytes.fromhex(label["digest"]),
            bytes.fromhex(features["digest"]),
            bytes.fromhex(edges["digest"]),
            label["shown"],
            None if shown is None else _pair(shown),
            None if edges["shown"] is None else bytes.fromhex(edges["shown"]),
        )


def _pair(shown: Mapping[str, str]) -> tuple[bytes, bytes]:
    return bytes.fromhex(shown["columns"]), bytes.fromhex(shown["values"])


def edge_entry(source: NodeId, weight: float = 1.0) -> bytes:
    """36 bytes of one in-neighbour."""
    return name_digest(source) + _WEIGHT.pack(weight)
