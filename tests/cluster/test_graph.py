"""Graph.apply, segments and digests: history leaves no trace in a key."""

from __future__ import annotations

import uuid
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import RolesConfig
from cluster.digest import digest, encode, keyed_hash
from cluster.errors import GraphError, UnknownIdError
from cluster.graph import Change, Graph
from cluster.readers.arrays import GraphWarning, from_arrays
from cluster.readers.columns import Columns
from cluster.schema import Schema
from cluster.segments import cut_segments, graph_digest, graph_from_segments, segment_digests

N, F, C = 9, 3, 3
FEATURES = ("a", "b", "c")
PAIRS = [(u, v) for u in range(N) for v in range(u + 1, N)]


def make_schema(*, layout="dense", directed=False, id_type="int", extras=False):
    return Schema(
        id_type=id_type,
        features=FEATURES,
        classes=("red", "green", "blue"),
        directed=directed,
        layout=layout,
        edge_weight=extras,
        node_columns=(("name", "str"), ("age", "float")) if extras else (),
        edge_columns=(("since", "int"),) if extras else (),
        nominal_nodes=N,
    )


def build(records, schema):
    """Graph straight from records: ``nodes`` {id: (features, label)}, ``edges`` {(u, v)}."""
    nodes, edges = records
    ids = list(nodes)
    row = {node_id: i for i, node_id in enumerate(ids)}
    columns = Columns()
    if schema.edge_weight:
        columns = Columns(
            np.asarray([1 + row_sum(e) % 3 for e in edges], np.float32),
            {"name": [f"n{i}" for i in ids], "age": [float(hash_of(i) % 90) for i in ids]},
            {"since": [row_sum(e) for e in edges]},
        )
    return from_arrays(
        np.asarray([[row[u], row[v]] for u, v in edges], np.int64).reshape(-1, 2).T,
        np.asarray([nodes[i][0] for i in ids], np.float32).reshape(-1, F),
        [nodes[i][1] for i in ids],
        ids=ids,
        schema=schema,
        columns=columns,
    )


def hash_of(node_id):
    return int(keyed_hash("test", 0, [node_id])[0])


def row_sum(edge):
    return sum(hash_of(end) % 100 for end in edge)


def without(records, change):
    """The plain Python meaning of a change."""
    nodes, edges = records
    gone = set(change.nodes)
    kept = {}
    for node_id, (x, label) in nodes.items():
        if node_id in gone:
            continue
        x = list(x)
        for owner, names in change.features:
            if owner == node_id:
                for name in FEATURES if names is None else names:
                    x[FEATURES.index(name)] = 0.0
        kept[node_id] = (x, None if node_id in change.labels else label)
    cut = {frozenset(edge) for edge in change.edges}
    return kept, [e for e in edges if not gone & set(e) and frozenset(e) not in cut]


@st.composite
def records_and_changes(draw):
    """Records and a list of one-record changes that can be applied in any order."""
    nodes = {
        100 + i * 7: (
            draw(st.lists(st.sampled_from([0.0, 1.0, -2.5]), min_size=F, max_size=F)),
            draw(st.sampled_from(["red", "green", None])),
        )
        for i in range(N)
    }
    ids = list(nodes)
    edges = [(ids[u], ids[v]) for u, v in draw(st.sets(st.sampled_from(PAIRS), min_size=4))]
    gone = draw(st.sets(st.sampled_from(ids), max_size=4))
    rest = [i for i in ids if i not in gone]
    changes = [Change(nodes=(i,)) for i in gone]
    changes += [Change(edges=(e,)) for e in edges if not gone & set(e) and draw(st.booleans())]
    changes += [Change(labels=(i,)) for i in rest if draw(st.booleans())]
    changes += [
        Change(features=((i, draw(st.sampled_from([None, ("a",), ("b", "c")]))),))
        for i in rest
        if draw(st.booleans())
    ]
    return (nodes, edges), draw(st.permutations(changes))


def merge(changes):
    fields = ("nodes", "edges", "features", "labels")
    return Change(**{f: tuple(item for c in changes for item in getattr(c, f)) for f in fields})


@settings(max_examples=60, deadline=None)
@given(records_and_changes(), st.sampled_from(["dense", "sparse"]), st.booleans())
def test_a_changed_graph_has_the_key_of_the_survivors_built_directly(case, layout, extras):
    records, changes = case
    schema = make_schema(layout=layout, extras=extras)
    before = build(records, schema)
    graph_digest(before)  # fills the segment cache that apply carries along

    after = before.apply(merge(changes))

    assert graph_digest(after) == graph_digest(build(without(records, merge(changes)), schema))


@settings(max_examples=40, deadline=None)
@given(records_and_changes(), st.data())
def test_the_order_and_batching_of_changes_do_not_matter(case, data):
    records, changes = case
    graph = build(records, make_schema(layout="sparse"))
    cut = data.draw(st.integers(0, len(changes)))

    at_once = graph.apply(merge(changes))
    one_by_one = graph
    for change in reversed(changes):
        one_by_one = one_by_one.apply(change)
        graph_digest(one_by_one)
    in_two = graph.apply(merge(changes[:cut])).apply(merge(changes[cut:]))

    assert graph_digest(at_once) == graph_digest(one_by_one) == graph_digest(in_two)


@settings(max_examples=40, deadline=None)
@given(records_and_changes(), st.sampled_from(["dense", "sparse"]), st.booleans())
def test_segments_put_together_give_the_same_graph(case, layout, extras):
    records, changes = case
    graph = build(records, make_schema(layout=layout, extras=extras)).apply(merge(changes))

    back = graph_from_segments(graph.schema, [t for _, t in cut_segments(graph, range(256))])

    assert graph_digest(back) == graph_digest(graph)
    assert back.node_ids.tolist() == graph.node_ids.tolist()
    assert back.ids.tolist() == graph.ids.tolist()


@settings(max_examples=30, deadline=None)
@given(records_and_changes())
def test_roles_and_internal_ids_of_the_others_never_move(case):
    records, changes = case
    graph, roles = build(records, make_schema()), RolesConfig(seed=3)
    before = dict(zip(graph.ids.tolist(), graph.roles(roles).tolist(), strict=True))
    internal = dict(zip(graph.ids.tolist(), graph.node_ids.tolist(), strict=True))

    after = graph.apply(merge(changes))

    for node_id, role, number in zip(
        after.ids.tolist(), after.roles(roles).tolist(), after.node_ids.tolist(), strict=True
    ):
        assert (role, number) == (before[node_id], internal[node_id])


@pytest.fixture
def square():
    """Ids 10, 20, 30, 40 in a ring, one feature row each."""
    nodes = {10: ([1, 2, 3], "red"), 20: ([4, 5, 6], "green"), 30: ([7, 8, 9], None)}
    nodes[40] = ([1, 0, 1], "blue")
    return build((nodes, [(20, 10), (20, 30), (40, 30), (10, 40)]), make_schema())


def test_an_erased_label_moves_no_role(square):
    roles = RolesConfig(seed=1)

    after = square.apply(Change(labels=(20,)))

    assert after.y.tolist() == [0, -1, -1, 2]
    assert after.roles(roles).tolist() == square.roles(roles).tolist()


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_an_erased_feature_becomes_zero_and_leaves_the_source_untouched(layout):
    graph = build(({1: ([1, 2, 3], "red"), 2: ([4, 5, 6], "red")}, []), make_schema(layout=layout))

    one = graph.apply(Change(features=((1, ("b",)),)))
    every = graph.apply(Change(features=((2, None),)))

    assert np.asarray(one.x.todense() if layout == "sparse" else one.x)[0].tolist() == [1, 0, 3]
    assert every.x[1].sum() == 0
    assert graph.x.sum() == 21
    if layout == "sparse":
        assert one.x.nnz == 5


def test_an_erased_undirected_edge_goes_both_ways(square):
    after = square.apply(Change(edges=((10, 20),)))  # was given as (20, 10)

    rows = dict(zip(after.ids.tolist(), range(4), strict=True))
    assert after.num_edges == 3
    assert after.adjacency.matrix()[rows[10], rows[20]] == 0
    assert after.adjacency.matrix()[rows[20], rows[10]] == 0
    assert graph_digest(after) == graph_digest(square.apply(Change(edges=((20, 10),))))


def test_an_edge_of_a_directed_graph_goes_one_way_only():
    schema = make_schema(directed=True)
    nodes = {1: ([0, 0, 0], None), 2: ([0, 0, 0], None)}
    graph = build((nodes, [(1, 2), (2, 1)]), schema)

    after = graph.apply(Change(edges=((1, 2),)))

    assert [(after.src.tolist(), after.dst.tolist())] == [([1], [0])]
    with pytest.raises(UnknownIdError, match=r"\(1, 2\)"):
        after.apply(Change(edges=((1, 2),)))


def test_a_node_goes_with_its_edges(square):
    after = square.apply(Change(nodes=(10,)))

    assert after.ids.tolist() == [20, 30, 40]
    assert after.node_ids.tolist() == square.node_ids[1:].tolist()
    assert sorted(zip(after.src.tolist(), after.dst.tolist(), strict=True)) == [(0, 1), (1, 2)]


def test_all_nodes_can_go(square):
    after = square.apply(Change(nodes=(10, 20, 30, 40)))

    assert (after.num_nodes, after.num_edges) == (0, 0)
    back = graph_from_segments(after.schema, [t for _, t in cut_segments(after, range(256))])
    assert graph_digest(back) == graph_digest(after)


def test_an_empty_change_changes_no_key(square):
    assert Change().is_empty
    assert graph_digest(square.apply(Change())) == graph_digest(square)


def test_an_erasure_rehashes_only_the_segments_it_touched(square):
    before = segment_digests(square)

    after = square.apply(Change(labels=(20,)))

    touched = int(square.segments[square.rows([20])[0]])
    assert set(range(256)) - set(after.segment_cache) == {touched}
    assert [s for s in range(256) if segment_digests(after)[s] != before[s]] == [touched]


@pytest.mark.parametrize(
    "change",
    [
        Change(nodes=(99, 10, 98)),
        Change(labels=(99, 98)),
        Change(features=((99, None), (98, ("a",)))),
        Change(edges=((10, 99), (98, 20))),
    ],
)
def test_unknown_ids_are_all_listed_and_nothing_changes(square, change):
    key = graph_digest(square)

    with pytest.raises(UnknownIdError, match=r"99.*98") as caught:
        square.apply(change)

    assert len(caught.value.ids) == 2
    assert graph_digest(square) == key


def test_an_edge_that_does_not_exist_is_refused(square):
    with pytest.raises(UnknownIdError, match=r"1 edge\(s\).*\(10, 30\)"):
        square.apply(Change(edges=((10, 30),)))


def test_an_unknown_feature_column_is_refused_with_its_name(square):
    with pytest.raises(GraphError, match=r"node 10: no feature column \['z'\]"):
        square.apply(Change(features=((10, ("z",)),)))


@pytest.mark.parametrize("alike", ["10", 10.0, True])
def test_an_id_of_another_type_is_unknown(square, alike):
    with pytest.raises(UnknownIdError):
        square.rows([alike])
    with pytest.raises(UnknownIdError):
        square.edge_positions([(alike, 20)])


def one_node(node_id, id_type, x=(1, 0, 0)):
    return build(({node_id: (list(x), None)}, []), make_schema(id_type=id_type))


def test_ids_of_different_types_give_different_keys():
    number = uuid.UUID(int=1)
    graphs = [one_node(1, "int"), one_node("1", "str"), one_node(number, "uuid")]
    graphs += [one_node(str(number), "str")]

    assert len({graph_digest(graph) for graph in graphs}) == 4
    assert len({graph.hash("role")[0] for graph in graphs}) == 4
    assert len({encode(1), encode("1"), encode(1.0), encode(True), encode(b"1")}) == 5


def test_minus_zero_is_zero_in_every_key():
    assert digest("t", np.asarray([-0.0, 1.0])) == digest("t", np.asarray([0.0, 1.0]))
    assert digest("t", -0.0) == digest("t", 0.0)
    assert graph_digest(one_node(1, "int", (-0.0, 0, 1))) == graph_digest(
        one_node(1, "int", (0.0, 0, 1))
    )


def test_explicit_zeros_and_entry_order_of_a_sparse_matrix_enter_no_key():
    schema = make_schema(layout="sparse")
    plain = sp.csr_matrix(np.asarray([[0, 2, 3], [1, 0, 0]], np.float32))
    odd = sp.csr_matrix(
        (np.asarray([3, 0, 1, 1, 1], np.float32), [2, 0, 1, 1, 0], [0, 4, 5]), shape=(2, 3)
    )
    edges = np.empty((2, 0), np.int64)

    keys = {graph_digest(from_arrays(edges, x, schema=schema)) for x in (plain, odd)}

    assert len(keys) == 1


def test_the_layout_is_part_of_the_schema_and_of_the_key():
    records = ({1: ([1, 2, 3], None)}, [])

    keys = {graph_digest(build(records, make_schema(layout=lay))) for lay in ("dense", "sparse")}

    assert len(keys) == 2


def test_the_order_of_the_input_rows_enters_no_key(square):
    nodes = {40: ([1, 0, 1], "blue"), 30: ([7, 8, 9], None), 10: ([1, 2, 3], "red")}
    nodes[20] = ([4, 5, 6], "green")

    turned = build((nodes, [(40, 10), (30, 40), (10, 20), (30, 20)]), make_schema())

    assert graph_digest(turned) == graph_digest(square)


def test_schema_survives_json(square):
    schema = make_schema(extras=True)

    assert Schema.from_json(schema.to_json()) == schema


def test_both_directions_of_an_undirected_edge_are_one_edge_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphWarning)
        graph = Graph.from_arrays([[0, 1, 1], [1, 0, 2]], np.eye(3), [0, 1, 1])

    assert graph.num_edges == 2
    assert graph.adjacency.degree.tolist() == [1, 2, 1]
