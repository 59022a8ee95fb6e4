from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import VerificationError
from coordinator.evidence.errors import TreeProofError
from coordinator.evidence.merkle import (
    POSITION_TAG,
    KeyedTree,
    Proof,
    check_absent,
    check_present,
    depth_of,
    keyed,
    position_of,
    value_of,
)

KEY = bytes(range(32))


def name(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def rows_of(numbers: dict[int, int]) -> dict[bytes, bytes]:
    return {name(number): name(1000 + value) for number, value in numbers.items()}


def _documented() -> Callable[[bytes, dict[bytes, bytes]], bytes]:
    """The program that docs/evidence.md gives to auditors."""
    text = (Path(__file__).parents[3] / "docs" / "evidence.md").read_text()
    (program,) = re.findall(r"```python\n(import hashlib, hmac\n.*?)```", text, re.DOTALL)
    space: dict[str, Any] = {}
    exec(program, space)
    root: Callable[[bytes, dict[bytes, bytes]], bytes] = space["root"]
    return root


documented_root = _documented()


def test_the_fast_hmac_is_hmac() -> None:
    messages = [b"", b"a", bytes(200)]

    found = keyed(KEY, POSITION_TAG, messages)

    assert found == [hmac.digest(KEY, POSITION_TAG + m, "sha256") for m in messages]


@pytest.mark.parametrize(
    ("leaves", "depth"), [(0, 0), (1, 0), (8, 0), (9, 1), (16, 1), (17, 2), (10_000, 11)]
)
def test_the_depth_follows_from_the_number_of_leaves(leaves: int, depth: int) -> None:
    assert depth_of(leaves) == depth


@pytest.mark.parametrize("size", [0, 1, 8, 9, 100, 1000])
def test_the_root_is_that_of_the_documented_layout(size: int) -> None:
    rows = rows_of({number: number for number in range(size)})

    assert KeyedTree(KEY, rows).root == documented_root(KEY, rows)


def test_an_empty_tree_proves_absence() -> None:
    tree = KeyedTree(KEY, {})

    assert check_absent(tree.root, tree.prove([name(1)]), KEY, name(1))


def test_another_key_gives_another_root_and_cannot_be_tested() -> None:
    rows = rows_of({1: 1, 2: 2})
    tree, other = KeyedTree(KEY, rows), KeyedTree(bytes(32), rows)

    assert tree.root != other.root
    assert not check_present(tree.root, tree.prove([name(1)]), bytes(32), name(1), rows[name(1)])


numbers = st.dictionaries(st.integers(0, 60), st.integers(0, 3), max_size=60)


@given(st.lists(numbers, min_size=1, max_size=6))
def test_a_tree_kept_from_content_to_content_is_the_tree_from_scratch(
    contents: list[dict[int, int]],
) -> None:
    tree = KeyedTree(KEY, rows_of(contents[0]))

    for content in contents[1:]:
        earlier, root = tree, tree.root
        tree = tree.moved(rows_of(content))

        assert tree.root == documented_root(KEY, rows_of(content))
        assert tree.depth == depth_of(len(content))
        assert earlier.root == root


@given(numbers, st.lists(st.integers(0, 80), min_size=1, max_size=5))
def test_proofs_show_what_is_there_and_what_is_not(
    content: dict[int, int], asked: list[int]
) -> None:
    rows = rows_of(content)
    tree = KeyedTree(KEY, rows)
    proof = Proof.from_json(tree.prove(map(name, asked)).to_json())

    for number in asked:
        row = rows.get(name(number))
        assert check_absent(tree.root, proof, KEY, name(number)) == (row is None)
        assert check_present(tree.root, proof, KEY, name(number), row or name(0)) == bool(row)
        assert not check_present(tree.root, proof, KEY, name(number), b"other row")


@given(numbers.filter(bool), st.data())
def test_a_forged_absence_of_a_present_name_fails(
    content: dict[int, int], data: st.DataObject
) -> None:
    """Leaving the leaf out, moving it, or showing another bucket leads to no root."""
    rows = rows_of(content)
    tree = KeyedTree(KEY, rows)
    target = name(data.draw(st.sampled_from(sorted(content))))
    honest = tree.prove([target])
    index, bucket = next(iter(honest.buckets.items()))
    leaf = position_of(KEY, target) + value_of(KEY, rows[target])
    other = (index + 1) % (1 << tree.depth)
    without = KeyedTree(KEY, {n: r for n, r in rows.items() if n != target})
    forgeries = [
        replace(honest, buckets={index: bucket.replace(leaf, b"")}),
        replace(honest, buckets={index: bucket.replace(leaf, b"")}, count=honest.count - 1),
        replace(honest, buckets={index: bytes(64) + bucket}),
        replace(honest, buckets={index: b""}),
        replace(honest, path=(*honest.path, bytes(32))),
        replace(honest, depth=0, count=1, path=()),
        without.prove([target]),
    ]
    if other != index:
        forgeries.append(replace(honest, buckets={other: bucket}))

    for forged in forgeries:
        if forged == honest:
            continue
        with pytest.raises(TreeProofError):
            check_absent(tree.root, forged, KEY, target)


def test_a_proof_of_other_names_says_nothing() -> None:
    rows = rows_of(dict.fromkeys(range(100), 0))
    tree = KeyedTree(KEY, rows)
    buckets = {position_of(KEY, n)[0] >> 4: n for n in rows}
    first, second = list(buckets.values())[:2]

    with pytest.raises(TreeProofError, match="does not show"):
        check_absent(tree.root, tree.prove([first]), KEY, second)


@pytest.mark.parametrize(
    "broken",
    [
        {"depth": 0, "count": 1, "buckets": {"00": ""}, "path": []},
        {"depth": 0, "count": 1, "buckets": {"-1": ""}, "path": []},
        {"depth": 0, "count": 1, "buckets": {"0": "f"}, "path": []},
        {"depth": 0, "count": 1, "buckets": {"0": ""}, "path": ["00"]},
        {"depth": 0, "count": "1", "buckets": {"0": ""}, "path": []},
        {"depth": 0, "count": 1, "buckets": {"0": ""}},
        {"depth": 0, "count": 1, "buckets": {"0": ""}, "path": [], "more": 1},
        {"depth": 0, "count": 1, "buckets": {}, "path": []},
        {"depth": 40, "count": 2**60, "buckets": {"0": ""}, "path": []},
        {"depth": -1, "count": -5, "buckets": {"0": ""}, "path": []},
        {"depth": 0, "count": 1, "buckets": {"7": ""}, "path": []},
    ],
)
def test_a_malformed_proof_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(VerificationError):
        Proof.from_json(broken).check(bytes(32))
