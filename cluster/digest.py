"""Content addresses: one typed, length-prefixed encoding, SHA-256 over it, and keyed id hashes.

Two values get the same digest only when they have the same type and content: ``1`` and ``"1"``
differ, ``-0.0`` and ``0.0`` do not, and no concatenation of fields can imitate another.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

from cluster.ids import NodeId as NodeId
from cluster.ids import encode_id as encode_id

Digest = NewType("Digest", str)

_LENGTH = struct.Struct(">Q")


def _framed(tag: bytes, payload: bytes) -> bytes:
    return tag + _LENGTH.pack(len(payload)) + payload


def canonical_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``array`` contiguous, little-endian, with ``-0.0`` replaced by ``0.0``."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "f":
        array = array + array.dtype.type(0)  # -0.0 + 0.0 == 0.0
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def encode(value: Any) -> bytes:
    """Encode a value of plain types, NumPy arrays, and nests of them.

    Raises:
        TypeError: the value has a type without a canonical form.
    """
    return b"".join(_chunks(value))


def _chunks(value: Any) -> list[bytes | memoryview]:
    """The encoding in pieces, so that large arrays are hashed without copying them together."""
    if isinstance(value, np.ndarray):
        return _array_chunks(value)
    if isinstance(value, Mapping):
        items = sorted((encode(key), item) for key, item in value.items())
        return _frame(b"m", [chunk for key, item in items for chunk in (key, *_chunks(item))])
    if isinstance(value, tuple | list):
        return _frame(b"l", [chunk for item in value for chunk in _chunks(item)])
    return [_encode_scalar(value)]


def _frame(tag: bytes, chunks: list[bytes | memoryview]) -> list[bytes | memoryview]:
    return [tag + _LENGTH.pack(sum(map(len, chunks))), *chunks]


def _array_chunks(array: npt.NDArray[Any]) -> list[bytes | memoryview]:
    if array.dtype.kind == "O":
        return _frame(b"o", [chunk for item in array.tolist() for chunk in _chunks(item)])
    array = canonical_array(array)
    head = _framed(b"h", f"{array.dtype.str}{array.shape}".encode())
    return _frame(b"a", [head, array.reshape(-1).view(np.uint8).data])


def _encode_scalar(value: Any) -> bytes:
    if value is None:
        return _framed(b"n", b"")
    if isinstance(value, bool):
        return _framed(b"b", b"\1" if value else b"\0")
    if isinstance(value, int | np.integer):
        return _framed(b"i", str(int(value)).encode())
    if isinstance(value, float | np.floating):
        return _framed(b"f", struct.pack(">d", float(value) + 0.0))
    if isinstance(value, str):
        return _framed(b"s", value.encode())
    if isinstance(value, bytes):
        return _framed(b"y", value)
    if isinstance(value, uuid.UUID):
        return _framed(b"u", value.bytes)
    raise TypeError(f"no canonical encoding for {type(value).__name__}")


def digest(tag: str, *fields: Any) -> Digest:
    """SHA-256 (hex) of a domain tag and its fields, in order."""
    state = hashlib.sha256(encode(tag))
    for field in fields:
        for chunk in _chunks(field):
            state.update(chunk)
    return Digest(state.hexdigest())


def tensors_digest(tensors: Mapping[str, npt.NDArray[Any]]) -> Digest:
    """Digest of named arrays, whatever the file that holds them."""
    return digest("tensors", {name: np.asarray(array) for name, array in tensors.items()})


def keyed_hash(domain: str, seed: int, ids: Iterable[NodeId]) -> npt.NDArray[np.uint64]:
    """Hash every id alone under a domain-separated key.

    Args:
        domain: what the hash decides (``"role"``, ``"shard"``, ...); other domains are independent.
        seed: root seed of that decision.
        ids: external ids.

    Returns:
        ``[N]`` uint64, uniform; an id's value never depends on another id.
    """
    key = hashlib.blake2b(encode((domain, int(seed))), digest_size=32).digest()
    hashes = b"".join(
        hashlib.blake2b(encode_id(node_id), key=key, digest_size=8).digest() for node_id in ids
    )
    return np.frombuffer(hashes, dtype="<u8").astype(np.uint64)


def derive_seed(root_seed: int, *path: str | int) -> int:
    """Derive an independent 63-bit seed for a named purpose."""
    raw = hashlib.blake2b(encode((int(root_seed), path)), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1
