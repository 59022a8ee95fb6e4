from __future__ import annotations

import hashlib
import struct
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.graph import Change, Graph
from coordinator.evidence.errors import RecordError
from coordinator.evidence.leaves import leaves_of, open_row
from coordinator.evidence.records import RowOpening, edge_entry, name_digest
from shards.content import build_content
from shards.shard_graph import build_index
from tests.coordinator.evidence.cases import content_of
from tests.graphs import path_graph, random_graph, random_halo, round_robin, two_triangles


def sha(tag: str, content: bytes) -> bytes:
    return hashlib.sha256(b"unweave/" + tag.encode() + b"/1\0" + content).digest()


def name_of_int(node_id: int) -> bytes:
    return sha("name", b"i" + node_id.to_bytes(8, "big", signed=True))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_row_digest_is_the_documented_one(sparse: bool) -> None:
    """Node 2 of the two triangles: class 0, features 3 0 1, neighbours 0, 1, 3."""
    content = content_of(two_triangles(sparse=sparse))

    found = leaves_of(content).rows[name_of_int(2)]

    columns = struct.pack("<2I", 0, 2) if sparse else b""
    values = struct.pack("<2f", 3, 1) if sparse else struct.pack("<3f", 3, 0, 1)
    neighbours = b"".join(name_of_int(i) + struct.pack("<f", 1) for i in (0, 1, 3))
    parts = [
        sha("label", struct.pack(">i", 0)),
        sha("features", len(columns).to_bytes(8, "big") + columns + values),
        sha("edges", neighbours),
    ]
    head = struct.pack(">BQ", 1, 2**64 - 1)
    assert found == sha("row", name_of_int(2) + head + b"".join(parts))


@pytest.mark.parametrize("sparse", [False, True])
def test_an_erasure_moves_the_rows_that_read_it_and_no_other(sparse: bool) -> None:
    graph = two_triangles(sparse=sparse)
    before = leaves_of(content_of(graph))
    changes = {
        Change(nodes=(0,)): {0, 1, 2},
        Change(edges=((2, 3),)): {2, 3},
        Change(labels=(4,)): {4},
        Change(features=((1, ("f1",)),)): {1},
        Change(features=((0, ("f1",)),)): set(),  # it is zero already
    }

    for change, moved in changes.items():
        change = _named(change, graph)
        after = leaves_of(content_of(graph.apply(change)), before)
        ids = graph.ids.tolist()
        found = {i for i in ids if before.rows[name_digest(i)] != after.rows.get(name_digest(i))}
        assert found == moved


def _named(change: Change, graph: Graph) -> Change:
    names = {f"f{i}": name for i, name in enumerate(graph.schema.features)}
    features = tuple((i, tuple(names[c] for c in columns or ())) for i, columns in change.features)
    return Change(change.nodes, change.edges, features, change.labels)


kinds = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["dense", "sparse"]),
        "directed": st.booleans(),
        "weighted": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), kinds, st.booleans(), st.data())
def test_digests_kept_from_content_to_content_are_those_from_scratch(
    seed: int, options: dict[str, Any], phantoms: bool, data: st.DataObject
) -> None:
    graph = random_graph(seed, **options)
    halo = random_halo(seed, 3)
    kept = None
    for _ in range(3):
        ids = graph.ids.tolist()
        erased = data.draw(st.sets(st.sampled_from(ids), max_size=3)) if kept else set()
        rest = [i for i in ids if i not in erased]
        cells = data.draw(st.sets(st.sampled_from(rest), max_size=2))
        labels = data.draw(st.sets(st.sampled_from(rest), max_size=2))
        change = Change(
            tuple(sorted(erased)), (), tuple((i, None) for i in sorted(cells)), tuple(labels)
        )
        graph = graph.apply(change)
        partition = round_robin(graph, 3)
        if halo is not None and not phantoms:
            from dataclasses import replace

            partition = replace(partition, halo=halo)
        index = build_index(graph, partition, has_phantoms=phantoms)
        content = build_content(graph, index, 1)

        fresh = leaves_of(content)
        kept = leaves_of(content, kept or fresh)

        assert kept.rows == fresh.rows
        assert kept.names == fresh.names
        assert len(fresh.rows) == content.num_nodes


def test_digests_of_another_kind_of_content_are_made_anew() -> None:
    text = path_graph(4, ids=["a", "b", "c", "d"])
    uuids = path_graph(3, ids=[uuid.UUID(int=i) for i in range(3)])
    empty = text.apply(Change(nodes=("a", "b", "c", "d")))

    for first, second in ((text, text.apply(Change(nodes=("b",)))), (text, empty), (empty, text)):
        before = leaves_of(content_of(first))
        after = leaves_of(content_of(second), before)
        assert after.rows == leaves_of(content_of(second)).rows
    assert len(leaves_of(content_of(uuids)).rows) == 3


def test_minus_zero_is_zero() -> None:
    plus, minus = two_triangles(), two_triangles()
    minus.x[minus.x == 0] = np.float32(-0.0)

    assert leaves_of(content_of(plus)).rows == leaves_of(content_of(minus)).rows


@pytest.mark.parametrize("sparse", [False, True])
def test_an_opened_row_leads_to_its_digest_and_shows_what_it_shows(sparse: bool) -> None:
    content = content_of(two_triangles(sparse=sparse))

    opening = open_row(content, 2, show=("label", "features", "edges"))
    read = RowOpening.from_json(opening.to_json())

    assert read == opening
    assert read.digest(name_digest(2)) == leaves_of(content).rows[name_digest(2)]
    assert read.shown_label == 0
    assert [read.feature(column) for column in range(3)] == [3, 0, 1]
    assert [i for i in range(6) if read.has_edge_from(i)] == [0, 1, 3]
    assert read.shown_edges == edge_entry(0) + edge_entry(1) + edge_entry(3)


def test_a_closed_part_stays_closed() -> None:
    opening = open_row(content_of(two_triangles()), 2)

    assert opening.shown_label is opening.shown_features is opening.shown_edges is None
    with pytest.raises(RecordError, match="does not show the edges"):
        opening.has_edge_from(0)
    with pytest.raises(RecordError, match="does not show the features"):
        opening.feature(0)


def test_an_opening_that_shows_something_else_is_refused() -> None:
    from dataclasses import replace

    opening = open_row(content_of(two_triangles()), 2, show=("label", "features", "edges"))
    forgeries = [
        replace(opening, shown_label=1),
        replace(opening, shown_edges=edge_entry(0)),
        replace(opening, shown_features=(b"", bytes(12))),
    ]

    for forged in forgeries:
        with pytest.raises(RecordError, match="do not have their digests"):
            forged.digest(name_digest(2))
    with pytest.raises(RecordError, match="no column 9"):
        opening.feature(9)


def test_a_node_that_is_not_there_cannot_be_opened() -> None:
    with pytest.raises(RecordError, match="no such node"):
        open_row(content_of(two_triangles()), 77)
