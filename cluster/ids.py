"""External ids and their bytes; no NumPy, so that a certificate is checked without it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

NodeId = int | str | uuid.UUID

_TYPES: dict[str, Any] = {"int": int, "str": str, "uuid": uuid.UUID}


def encode_id(node_id: NodeId) -> bytes:
    """Encode an external id as one type byte plus its bytes (int64 big-endian, UTF-8, or UUID)."""
    if isinstance(node_id, str):
        return b"s" + node_id.encode()
    if isinstance(node_id, uuid.UUID):
        return b"u" + node_id.bytes
    return b"i" + int(node_id).to_bytes(8, "big", signed=True)


def id_to_json(node_id: NodeId) -> list[str]:
    """An id as its type and text."""
    return [next(k for k, t in _TYPES.items() if isinstance(node_id, t)), str(node_id)]


def id_from_json(data: Sequence[str]) -> NodeId:
    """Inverse of :func:`id_to_json`."""
    node_id: NodeId = _TYPES[data[0]](data[1])
    return node_id
