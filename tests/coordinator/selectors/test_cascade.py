"""What goes with a subject, checked by hand and against a naive fixpoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import ConfigError, SelectorError, UnknownIdError
from cluster.graph import Graph
from coordinator.erasure import Erasure, present_part
from coordinator.selectors.cascade import NOTHING, Cascade, SubjectErasure, expand
from coordinator.selectors.lint import lint
from coordinator.selectors.rules import SubjectRules, load_rules
from coordinator.selectors.subjects import SubjectMap
from tests.coordinator.selectors.people import (
    EDGES,
    NODES,
    ROWS,
    people,
    rules,
    subject_map,
    typed_graph,
)
from tests.graphs import path_graph


def without(graph: Graph, erasure: Erasure) -> Graph:
    change, absent = present_part(graph, erasure)
    assert absent.is_empty
    return graph.apply(change)


def records(graph: Graph) -> tuple[object, ...]:
    ends = zip(graph.ids[graph.src], graph.ids[graph.dst], strict=True)
    return tuple(graph.ids), tuple(ends)


def test_ada_goes_with_her_card_and_her_own_device_and_leaves_the_shared_one() -> None:
    found = expand(people(), subject_map(), rules(), ["ada"])

    assert found.deleted_nodes == ("acc-ada", "card-1", "dev-1")
    assert found.kept_shared == ("dev-2",)
    assert found.erasure.edges == (("note", "dev-2"),)
    assert found.types == {"account": 1, "card": 1, "device": 1}
    assert found.reasons == {
        "owner": 1, "deep": 1, "refcount": 1, "mention edge": 1,
        "kept: another node refers to it": 1,
    }  # fmt: skip


def test_the_shared_device_goes_with_its_last_owner() -> None:
    found = expand(people(), subject_map(), rules(), ["ada", "bob"])

    assert found.deleted_nodes == ("acc-ada", "acc-bob", "card-1", "dev-1", "dev-2", "dev-3")
    assert found.erasure.edges == ()


def test_without_rules_owner_nodes_go_and_mentions_lose_edges_to_them_alone() -> None:
    graph = path_graph(5)
    subjects = SubjectMap.from_rows([("a", 1, "owner"), ("a", 2, "mention")], graph)

    found = expand(graph, subjects, None, ["a"])

    assert (found.deleted_nodes, found.erasure.edges) == ((1,), ())
    assert records(without(graph, found.erasure)) == ((0, 2, 3, 4), ((2, 3), (3, 4)))


def test_a_person_with_mentions_alone_loses_nothing() -> None:
    subjects = SubjectMap.from_rows([("a", "shop", "mention")], people())

    assert expand(people(), subjects, rules(), ["a"]).erasure.is_empty


def test_an_edge_never_deletes_a_node_that_a_remaining_subject_owns() -> None:
    rows = [*ROWS, ("bob", "card-1", "owner")]
    subjects = SubjectMap.from_rows(rows, people())  # type: ignore[arg-type]

    found = expand(people(), subjects, rules(), ["ada"])

    assert "card-1" in found.kept_shared
    assert found.reasons["kept: another subject owns it"] == 1
    assert "card-1" in expand(people(), subjects, rules(), ["bob"]).deleted_nodes


def test_an_owner_row_on_a_node_of_type_never_deletes_nothing() -> None:
    subjects = SubjectMap.from_rows([("a", "shop", "owner")], people())

    found = expand(people(), subjects, rules(), ["a"])

    assert (found.deleted_nodes, found.kept_shared) == ((), ("shop",))


def test_an_undirected_edge_follows_towards_the_named_type_and_is_refused_without_one() -> None:
    graph = typed_graph(NODES, EDGES, directed=False)
    named = {"rule": "deep", "target": "card"}, {"rule": "refcount", "target": "device"}
    edge_types = {**rules().model_dump()["edge_types"], "owns": named[0], "logs_in_on": named[1]}

    found = expand(graph, subject_map(graph), rules(edge_types=edge_types), ["ada"])

    assert found.deleted_nodes == ("acc-ada", "card-1", "dev-1")
    with pytest.raises(SelectorError, match=r"write logs_in_on: \{rule: refcount"):
        expand(graph, subject_map(graph), rules(), ["ada"])


def test_a_type_without_a_rule_and_a_cascade_over_the_bound_are_refused() -> None:
    with pytest.raises(SelectorError, match="2 edges of type 'pays' have no rule"):
        expand(people(), subject_map(), rules(edge_types={"owns": "deep"}), ["ada"])
    with pytest.raises(SelectorError, match="more than 2 nodes a subject"):
        expand(people(), subject_map(), rules(max_nodes=2), ["ada"])
    with pytest.raises(UnknownIdError, match="'eve'"):
        expand(people(), subject_map(), rules(), ["ada", "eve"])
    with pytest.raises(SelectorError, match="no edge column 'kind'"):
        expand(people(), subject_map(), rules(edge_column="kind"), ["ada"])


def test_an_unknown_edge_type_may_be_shallow_by_choice() -> None:
    chosen = rules(edge_types={"owns": "deep"}, unknown_edge_type="shallow")

    found = expand(people(), subject_map(), chosen, ["ada"])

    assert found.deleted_nodes == ("acc-ada", "card-1", "dev-2")  # nothing refers to dev-2 now


# ---- against a naive fixpoint

KINDS = ("owned", "shared", "never")
Drawn = tuple[Graph, list[tuple[str, int, str]], SubjectRules]


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    n = draw(st.integers(2, 7))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=n, max_size=n))
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] != p[1])
    edge = st.sampled_from(["deep", "shallow", "refcount"])
    edges = draw(st.dictionaries(pairs, edge, max_size=12))
    graph = typed_graph(
        {f"{i}": kind for i, kind in enumerate(kinds)},
        {(f"{u}", f"{v}"): kind for (u, v), kind in edges.items()},
    )
    pair = st.tuples(st.sampled_from("abc"), st.integers(0, n - 1))
    owned = draw(st.dictionaries(pair, st.sampled_from(["owner", "mention"]), min_size=1))
    rows = [(s, f"{node}", role) for (s, node), role in owned.items()]
    same = {kind: kind for kind in KINDS}
    edge_rules = {kind: kind for kind in ("deep", "shallow", "refcount")}
    return graph, rows, load_rules({"node_types": same, "edge_types": edge_rules})  # type: ignore[return-value]


def naive(
    graph: Graph, rows: list[tuple[str, str, str]], gone: set[str], besides: Erasure = NOTHING
) -> set[str]:
    kind = dict(zip(graph.ids, graph.node_columns["type"], strict=True))
    ends = zip(graph.ids[graph.src], graph.ids[graph.dst], graph.edge_columns["type"], strict=True)
    edges = [edge for edge in ends if edge[2] != "shallow"]
    owners = {node: {s for s, m, r in rows if m == node and r == "owner"} for node in kind}
    deleted: set[str] = set()
    while True:
        new = set()
        for node in kind:
            into = [(u, rule) for u, v, rule in edges if v == node]
            named = bool(owners[node] & gone)
            reached = named or any(u in deleted for u, _ in into)
            last = not owners[node] - gone
            if kind[node] == "never" or not reached:
                continue
            followed = last and any(u in deleted and rule == "deep" for u, rule in into)
            outright = kind[node] == "owned" and (named or followed)
            holding = {u for u, _ in into if (u, node) not in besides.edges}
            if outright or (last and holding <= deleted | set(besides.nodes)):
                new.add(node)
        if new == deleted:
            return deleted
        deleted = new


@settings(max_examples=200, deadline=None)
@given(drawn(), st.randoms(use_true_random=False))
def test_the_cascade_is_the_least_fixpoint_whatever_the_order(case: Drawn, random: object) -> None:
    graph, rows, chosen = case
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    gone = {s for s, _, _ in rows if s != "c"}

    found = expand(graph, SubjectMap.from_rows(rows, graph), chosen, sorted(gone))  # type: ignore[arg-type]
    again = expand(graph, SubjectMap.from_rows(shuffled, graph), chosen, sorted(gone)[::-1])  # type: ignore[arg-type]

    assert found == again
    assert set(found.deleted_nodes) == naive(graph, rows, gone)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(drawn(), st.data())
def test_what_goes_whoever_goes_keeps_nothing_from_going(case: Drawn, data: st.DataObject) -> None:
    graph, rows, chosen = case
    ends = list(zip(graph.ids[graph.src].tolist(), graph.ids[graph.dst].tolist(), strict=True))
    nodes = data.draw(st.sets(st.sampled_from(graph.ids.tolist()), max_size=2))
    edges = data.draw(st.sets(st.sampled_from(ends), max_size=2)) if ends else set()
    besides = Erasure(sorted(nodes), sorted(edges))
    gone = sorted({s for s, _, _ in rows if s != "c"})

    run = Cascade(graph, SubjectMap.from_rows(rows, graph), chosen).run(besides)  # type: ignore[arg-type]

    found = {node for name in gone for node in run.expand([name]).deleted_nodes}
    assert found == naive(graph, rows, set(gone), besides)  # type: ignore[arg-type]


def test_what_was_named_before_goes_once_nothing_owns_it() -> None:
    graph = without(people(), Erasure(["acc-ada"]))
    cascade = Cascade(graph, subject_map(), rules())

    found = cascade.run().expand(["ada"], ["acc-ada", "card-1", "dev-1", "dev-2", "dev-3"])

    assert found.deleted_nodes == ("card-1", "dev-1")  # the others are used by bob's account


@settings(max_examples=200, deadline=None)
@given(drawn(), st.permutations("abc"))
def test_one_subject_after_the_other_leaves_what_all_at_once_leave(
    case: Drawn, order: list[str]
) -> None:
    graph, rows, chosen = case
    subjects = SubjectMap.from_rows(rows, graph)  # type: ignore[arg-type]
    order = [name for name in order if name in subjects.subjects]
    at_once = without(graph, expand(graph, subjects, chosen, order).erasure)

    run = Cascade(graph, subjects, chosen).run()
    parts = Erasure.merge([run.expand([name]).erasure for name in order])
    left, known = graph, subjects
    for name in order:
        if known.find([name])[0] >= 0:
            found = expand(left, known, chosen, [name])
            left, known = without(left, found.erasure), known.without([name], found.deleted_nodes)

    assert records(without(graph, parts)) == records(at_once)
    assert records(left) == records(at_once)


@settings(max_examples=100, deadline=None)
@given(drawn())
def test_asking_again_deletes_nothing_more(case: Drawn) -> None:
    graph, rows, chosen = case
    subjects = SubjectMap.from_rows(rows, graph)  # type: ignore[arg-type]
    name = subjects.subjects[0]
    left = without(graph, expand(graph, subjects, chosen, [name]).erasure)

    again: SubjectErasure = expand(left, subjects, chosen, [name])

    assert again.erasure.is_empty


# ---- rules and lint


def test_rules_are_read_with_and_without_their_root(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rules.yaml"
    path.write_text("subject_rules:\n  edge_types: {owns: deep, pays: {rule: shallow}}\n")

    assert load_rules(path) == load_rules({"edge_types": {"owns": "deep", "pays": "shallow"}})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"edge_types": {"owns": "deeper"}}, r"edge_types\.owns\.rule"),
        ({"edge_type": {}}, "edge_type: unknown field"),
        ({"max_nodes": 0}, "max_nodes"),
        ("nowhere.yaml", "cannot be read"),
    ],
)
def test_bad_rules_are_refused_by_field(source: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_rules(source)


def test_lint_lists_everything_and_not_the_first() -> None:
    graph = people()
    rows = [*ROWS, ("carl", "note", "mention")]
    edge_types = {"owns": {"rule": "deep", "target": "purse"}, "rents": "deep", "tags": "shallow"}
    chosen = rules(edge_types=edge_types, node_types={"account": "owned", "house": "owned"})

    found = lint(graph, SubjectMap.from_rows(rows, graph), chosen, 1)  # type: ignore[arg-type]

    assert found.codes() == [
        "node-type-without-rule", "node-type-without-rule", "node-type-without-rule",
        "node-type-without-rule", "edge-type-without-rule", "edge-type-without-rule",
        "rule-without-node-type", "target-without-node-type", "rule-without-edge-type",
        "mention-without-owner", "owned-node-without-subject", "cascade-exceeds-bound",
    ]  # fmt: skip
    assert not found.ok
    assert "'ada'" in found.problems[-1].message


def test_lint_is_silent_when_all_is_decided() -> None:
    rows = [*ROWS, ("ada", "card-1", "owner")]

    assert lint(people(), SubjectMap.from_rows(rows, people()), rules()).ok  # type: ignore[arg-type]
    assert lint(people(), subject_map(), None).ok


def test_lint_names_rows_of_nodes_that_are_gone() -> None:
    subjects = subject_map()
    graph = people().apply(present_part(people(), Erasure(nodes=["dev-2"]))[0])

    assert "node-not-in-graph" in lint(graph, subjects, rules()).codes()
    assert expand(graph, subjects, rules(), ["ada"]).deleted_nodes == (
        "acc-ada", "card-1", "dev-1",
    )  # fmt: skip


def test_a_million_rows_are_indexed_in_arrays() -> None:
    n = 1_000_000
    graph = Graph.from_arrays(
        np.empty((2, 0), np.int64), np.ones((n, 1), np.float32), None, ids=range(n)
    )
    from coordinator.selectors.subjects import _from_columns, pa

    names = pa.array(np.char.add("s", (np.arange(n) % 250_000).astype(str)))
    subjects = _from_columns(names, np.arange(n), np.ones(n, bool), graph, str)

    found = expand(graph, subjects, None, ["s7"])

    assert found.deleted_nodes == (7, 250_007, 500_007, 750_007)
