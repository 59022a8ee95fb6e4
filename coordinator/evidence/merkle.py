r"""A sparse keyed tree over the records of a shard: shows that a name has a row, or has none.

Layout (``H`` is SHA-256, ``M(tag, x)`` is HMAC-SHA-256 of ``tag || x`` under the leaf key)::

    leaf     = M("unweave/position/1\0", name digest) || M("unweave/value/1\0", row digest)
    depth d  = smallest d with 2^d * 8 >= number of leaves (at most 32)
    bucket i = the leaves whose position begins with the d bits of i, ascending, joined
    h(d, i)  = H(0x00 || bucket i)
    h(l, i)  = H(0x01 || h(l+1, 2i) || h(l+1, 2i+1))
    root     = H(0x02 || d as 1 byte || number of leaves as 8 bytes || h(0, 0))

The position depends on the name alone, so a name has one place: the bucket of its position shows
whatever row it has, and shows that it has none. RFC 6962, section 2.1, gives the prefixes 0x00
and 0x01; deviations: leaves are bucketed by position instead of appended (there is no order of
arrival to prove, but absence), and 0x02 binds depth and count.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from coordinator.evidence.errors import TreeProofError
from coordinator.evidence.fields import HEX, HEX32, require

POSITION_TAG, VALUE_TAG = b"unweave/position/1\0", b"unweave/value/1\0"
LEAF_BYTES, HALF = 64, 32

_MEAN_BUCKET = 8  # at most so many leaves a bucket on average
_MAX_DEPTH = 32
_BUCKET, _INNER, _ROOT = b"\0", b"\1", b"\2"

Levels = list[list[bytes]]  # hashes from the buckets up to the top


def keyed(key: bytes, tag: bytes, messages: Iterable[bytes]) -> list[bytes]:
    """HMAC-SHA-256 (RFC 2104) of ``tag || message`` for many messages.

    The padded key and the tag are hashed once; three times faster than one call a message.
    """
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + tag)
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
    result = []
    for message in messages:
        first, second = inner.copy(), outer.copy()
        first.update(message)
        second.update(first.digest())
        result.append(second.digest())
    return result


def position_of(key: bytes, name: bytes) -> bytes:
    """Where the leaf of a name lies."""
    return keyed(key, POSITION_TAG, [name])[0]


def value_of(key: bytes, row: bytes) -> bytes:
    """What the leaf of a row says."""
    return keyed(key, VALUE_TAG, [row])[0]


def depth_of(num_leaves: int) -> int:
    """Depth that the number of leaves decides, so that history does not."""
    needed = -(-num_leaves // _MEAN_BUCKET)
    return min(_MAX_DEPTH, max(0, needed - 1).bit_length())


def bucket_of(position: bytes, depth: int) -> int:
    """Number of the bucket of a position."""
    return int.from_bytes(position[:4], "big") >> (_MAX_DEPTH - depth)


def split_leaves(bucket: bytes) -> list[bytes]:
    """The leaves of a bucket."""
    return [bucket[i : i + LEAF_BYTES] for i in range(0, len(bucket), LEAF_BYTES)]


def _hash(prefix: bytes, content: bytes) -> bytes:
    return hashlib.sha256(prefix + content).digest()


def _root(depth: int, count: int, top: bytes) -> bytes:
    return _hash(_ROOT, bytes([depth]) + count.to_bytes(8, "big") + top)


@dataclass(frozen=True)
class Moves:
    """What lies between the rows of two contents.

    Attributes:
        put: rows that are new or changed.
        removed: names that are gone.
        changed: number of names in ``put`` that had another row.
    """

    put: Mapping[bytes, bytes]
    removed: frozenset[bytes]
    changed: int

    @classmethod
    def between(cls, before: Mapping[bytes, bytes], after: Mapping[bytes, bytes]) -> Moves:
        """Compare two mappings of name digest -> row digest."""
        put = {name: row for name, row in after.items() if before.get(name) != row}
        removed = frozenset(before.keys() - after.keys())
        return cls(put, removed, sum(name in before for name in put))


class KeyedTree:
    """The tree of one shard under one leaf key; values do not change, :meth:`moved` gives new ones.

    Attributes:
        key: leaf key, 32 bytes.
        rows: name digest -> row digest.
        depth: bits that choose a bucket.
    """

    def __init__(self, key: bytes, rows: Mapping[bytes, bytes], buckets: list[bytes] | None = None):
        self.key, self.rows = key, rows
        self.depth = depth_of(len(rows))
        self._buckets = _cut(_leaves(key, rows), self.depth) if buckets is None else buckets
        self._levels: Levels | None = None

    @property
    def count(self) -> int:
        """Number of leaves."""
        return len(self.rows)

    @property
    def root(self) -> bytes:
        """32 bytes that commit to every leaf."""
        return _root(self.depth, self.count, self._hashes()[-1][0])

    def _hashes(self) -> Levels:
        if self._levels is None:
            levels = [[_hash(_BUCKET, bucket) for bucket in self._buckets]]
            while len(levels[-1]) > 1:
                below = iter(levels[-1])
                pairs = zip(below, below, strict=True)
                levels.append([_hash(_INNER, left + right) for left, right in pairs])
            self._levels = levels
        return self._levels

    def moved(self, rows: Mapping[bytes, bytes], moves: Moves | None = None) -> KeyedTree:
        """The tree over other rows under the same key; only what differs is hashed.

        Args:
            rows: name digest -> row digest.
            moves: ``Moves.between(self.rows, rows)``, if it is known.
        """
        moves = moves or Moves.between(self.rows, rows)
        removed = set(keyed(self.key, POSITION_TAG, [*moves.put, *moves.removed]))
        added = _leaves(self.key, moves.put)
        if depth_of(len(rows)) != self.depth:
            kept = [
                leaf for leaf in split_leaves(b"".join(self._buckets)) if leaf[:HALF] not in removed
            ]
            return KeyedTree(self.key, rows, _cut(sorted(kept + added), depth_of(len(rows))))
        tree = KeyedTree(self.key, rows, list(self._buckets))
        tree._levels = [list(level) for level in self._hashes()]
        tree._replace(removed, added)
        return tree

    def _replace(self, removed: set[bytes], added: Sequence[bytes]) -> None:
        """Write the touched buckets anew and hash the way from them to the top."""
        levels = self._hashes()
        put: dict[int, list[bytes]] = {bucket_of(place, self.depth): [] for place in removed}
        for leaf in added:
            put[bucket_of(leaf, self.depth)].append(leaf)
        for index, leaves in put.items():
            kept = [x for x in split_leaves(self._buckets[index]) if x[:HALF] not in removed]
            self._buckets[index] = b"".join(sorted(kept + leaves))
            levels[0][index] = _hash(_BUCKET, self._buckets[index])
        above = set(put)
        for lower, upper in pairwise(levels):
            above = {index // 2 for index in above}
            for index in above:
                upper[index] = _hash(_INNER, lower[2 * index] + lower[2 * index + 1])

    def prove(self, names: Iterable[bytes]) -> Proof:
        """Show what the tree holds under ``names``: their buckets and the hashes beside them."""
        places = keyed(self.key, POSITION_TAG, names)
        wanted = sorted({bucket_of(place, self.depth) for place in places})
        levels, path = self._hashes(), []
        known = wanted
        for level in levels[:-1]:
            present = set(known)
            path += [level[index ^ 1] for index in known if index ^ 1 not in present]
            known = sorted({index // 2 for index in known})
        buckets = {index: self._buckets[index] for index in wanted}
        return Proof(self.depth, self.count, buckets, tuple(path))


def _leaves(key: bytes, rows: Mapping[bytes, bytes]) -> list[bytes]:
    """Every leaf, ascending."""
    places = keyed(key, POSITION_TAG, rows)
    values = keyed(key, VALUE_TAG, rows.values())
    return sorted(map(bytes.__add__, places, values))


def _cut(leaves: list[bytes], depth: int) -> list[bytes]:
    """Cut ascending leaves into ``2^depth`` buckets."""
    starts = [(i << (_MAX_DEPTH - depth)).to_bytes(4, "big") for i in range(1 << depth)]
    bounds = [bisect_left(leaves, start) for start in starts] + [len(leaves)]
    return [b"".join(leaves[a:b]) for a, b in pairwise(bounds)]


_PROOF = {"depth": int, "count": int, "buckets": {str: HEX}, "path": [HEX32]}


@dataclass(frozen=True)
class Proof:
    """Some buckets of a tree and the hashes that lead from them to its root.

    Attributes:
        depth: bits that choose a bucket.
        count: number of leaves in the tree.
        buckets: bucket number -> its leaves, joined.
        path: hashes beside the way up, from the buckets to the top, ascending within a level.
    """

    depth: int
    count: int
    buckets: Mapping[int, bytes]
    path: tuple[bytes, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            "depth": self.depth,
            "count": self.count,
            "buckets": {str(index): leaves.hex() for index, leaves in self.buckets.items()},
            "path": [item.hex() for item in self.path],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: str = "proof") -> Proof:
        """Inverse of :meth:`to_json`.

        Raises:
            VerificationError: a field is missing, unknown or malformed.
        """
        require(data, _PROOF, path)
        wrong = [name for name in data["buckets"] if not re.fullmatch(r"0|[1-9]\d{0,9}", name)]
        if wrong:
            raise TreeProofError(f"{path}.buckets has {wrong[0]!r}, which is no bucket number")
        return cls(
            data["depth"],
            data["count"],
            {int(index): bytes.fromhex(leaves) for index, leaves in data["buckets"].items()},
            tuple(bytes.fromhex(item) for item in data["path"]),
        )

    def check(self, root: bytes) -> None:
        """Check that the buckets are whole buckets of the tree with this root.

        Raises:
            TreeProofError: they are not.
        """
        if self.depth != depth_of(self.count) or not self.buckets:
            raise TreeProofError(f"no tree of {self.count} leaves has depth {self.depth}")
        for index, bucket in self.buckets.items():
            self._check_bucket(index, bucket)
        level = {index: _hash(_BUCKET, bucket) for index, bucket in self.buckets.items()}
        beside = iter(self.path)
        for _ in range(self.depth):
            level = _climb(level, beside)
        if next(beside, None) is not None or _root(self.depth, self.count, level[0]) != root:
            raise TreeProofError("the proof does not lead to the root; one of them was altered")

    def _check_bucket(self, index: int, bucket: bytes) -> None:
        places = [leaf[:HALF] for leaf in split_leaves(bucket)]
        ascending = all(a < b for a, b in pairwise(places))
        inside = all(bucket_of(place, self.depth) == index for place in places)
        if len(bucket) % LEAF_BYTES or not 0 <= index < 1 << self.depth:
            raise TreeProofError(f"bucket {index} is not a bucket of a tree of depth {self.depth}")
        if not ascending or not inside:
            raise TreeProofError(f"bucket {index} holds leaves out of their place")

    def find(self, position: bytes) -> bytes | None:
        """Value at a position, None where the tree holds nothing; call :meth:`check` first.

        Raises:
            TreeProofError: the proof does not cover the position.
        """
        index = bucket_of(position, self.depth)
        if index not in self.buckets:
            raise TreeProofError(f"the proof does not show bucket {index}, where the name would be")
        leaves = {leaf[:HALF]: leaf[HALF:] for leaf in split_leaves(self.buckets[index])}
        return leaves.get(position)


def _climb(level: Mapping[int, bytes], beside: Iterable[bytes]) -> dict[int, bytes]:
    """Hashes one level up; a missing neighbour is the next of ``beside``."""
    more = iter(beside)
    full = dict(level)
    for index in sorted(level):
        if index ^ 1 not in level:
            other = next(more, None)
            if other is None:
                raise TreeProofError("the proof is too short to lead to the root")
            full[index ^ 1] = other
    parents = {index // 2 for index in level}
    return {i: _hash(_INNER, full[2 * i] + full[2 * i + 1]) for i in parents}


def check_absent(root: bytes, proof: Proof, key: bytes, name: bytes) -> bool:
    """Whether the proof shows that the tree holds no row under ``name``, whatever its values.

    Raises:
        TreeProofError: the proof does not belong to the root or does not cover the name.
    """
    proof.check(root)
    return proof.find(position_of(key, name)) is None


def check_present(root: bytes, proof: Proof, key: bytes, name: bytes, row: bytes) -> bool:
    """Whether the proof shows that the tree holds exactly ``row`` under ``name``.

    Raises:
        TreeProofError: the proof does not belong to the root or does not cover the name.
    """
    proof.check(root)
    return proof.find(position_of(key, name)) == value_of(key, row)
