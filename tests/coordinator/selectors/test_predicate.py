"""The predicate language against a naive evaluator, and against noise."""

from __future__ import annotations

import math
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import SelectorError
from cluster.graph import Change, Graph
from cluster.readers.columns import Columns
from coordinator.selectors.columns import predicate_columns
from coordinator.selectors.predicate import MAX_DEPTH, compile_predicate, select_nodes
from coordinator.selectors.tokens import MAX_LENGTH

ROWS: list[dict[str, Any]] = [
    {"type": "account", "age": 3, "score": 0.5, "vip": True, "seen": "2022-12-31", "two words": 1},
    {"type": "account", "age": 40, "score": None, "vip": False, "seen": "", "two words": 2},
    {"type": "it's", "age": -1, "score": -2.0, "vip": False, "seen": "2023-01-01", "two words": 3},
    {"type": "", "age": 2**53 + 1, "score": 1e9, "vip": True, "seen": "2023-01-01T08:00:00Z",
     "two words": 4},
]  # fmt: skip
LABELS = [0, 1, None, 1]
IDS = [10, 11, 12, 13]
DEGREES = [2, 2, 2, 0]


def table() -> Graph:
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    node = {
        name: np.asarray(values, object if isinstance(values[0], str) else None)
        for name, values in columns.items()
    }
    node["score"] = np.asarray([math.nan if v is None else v for v in columns["score"]])
    labels = [-1 if label is None else label for label in LABELS]
    return Graph.from_arrays(
        [[0, 1, 0], [1, 2, 2]], np.ones((4, 1)), labels, ids=IDS, columns=Columns(node=node)
    )


GRAPH = table()
COLUMNS = predicate_columns(GRAPH)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("type = 'account'", [10, 11]),
        ("type = 'account' and age < 18", [10]),
        ("NOT (type = 'account' OR vip = TRUE)", [12]),
        ("type = 'it''s'", [12]),
        ("type in ('account', '') and vip != false", [10, 13]),
        ("age between -1 and 3", [10, 12]),
        ("age not between -1 and 3", [11, 13]),
        ("age = 9007199254740993", [13]),
        ("age not in (3, 40)", [12, 13]),
        ("score < 1", [10, 12]),
        ("not score < 1", [13]),  # an empty cell is neither
        ("score not in (0.5)", [12, 13]),
        ("score is null", [11]),
        ("score is not null and score >= 1e9", [13]),
        ("seen < date '2023-01-01'", [10]),  # and not the empty cell
        ("not seen < date '2023-01-01'", [12, 13]),
        ("seen >= timestamp '2023-01-01T08:00:00Z'", [13]),
        ("seen < '2023'", [10, 11]),
        ('"two words" > 2', [12, 13]),
        ("label = 1", [11, 13]),
        ("label is null or label = 0", [10, 12]),
        ("label != 1", [10]),
        ("degree = 0", [13]),
        ("id >= 12", [12, 13]),
        ("id in (10, 13) and not id = 13", [10]),
        ("type = 'a' or vip = true and age = 3", [10]),  # and before or
        ("\n age\t=\r3 ", [10]),
    ],
)
def test_a_predicate_selects_these_nodes(text: str, ids: list[int]) -> None:
    assert select_nodes(GRAPH, text) == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tpye = 'a'", r"character 1: no column 'tpye'; did you mean 'type'\?\n  tpye"),
        ("age = 3 and agee = 4", r"\n  age = 3 and agee = 4\n              \^"),
        ("age = ", "character 6: expected a value"),
        ("", "expected a column; there are 'age'"),
        ("age = 'a'", "column 'age' is int; compare it with a whole number"),
        ("age = 2.5", "holds whole numbers"),
        ("age = 9223372036854775808", "does not fit 64 bits"),
        ("score = 1e999", "no exact float64"),
        ("score = 9007199254740993", "no exact float64"),
        ("vip = 1", "compare it with true or false"),
        ("vip < true", "use = or !="),
        ("type is null", "never null; an empty cell is ''"),
        ("age is null", "column 'age' .int. is never null"),
        ("score = null", "write 'is null'"),
        ("seen < date '2023-02-30'", "no date; write date '2026-01-31'"),
        ("seen < date '20230228'", "no date"),
        ("seen < timestamp 'noon'", "no timestamp"),
        ("seen < date 2023", "expected text in quotes after 'date'"),
        ("age < date '2023-01-01'", "compare it with a whole number"),
        ("type = 'a", "this text has no end"),
        ('"age = 3', "this column name has no end"),
        ("age = 3; drop", "';' has no meaning"),
        ("age == 3", "expected a value"),
        ("age 3", "expected a comparison"),
        ("age not = 3", "expected a comparison"),
        ("age = degree", "a column stands on the left only"),
        ("3 = age", "expected a column"),
        ("(age = 3", r"expected '\)'"),
        ("age = 3 age = 4", "expected 'and', 'or' or the end"),
        ("age in ()", "expected a value"),
        ("__import__('os') = 1", "no column '__import__'"),
        ("(" * (MAX_DEPTH + 2) + "age = 3", "inside each other"),
        ("not " * (MAX_DEPTH + 2) + "age = 3", "inside each other"),
        ("age = 1 or " * MAX_LENGTH, "the most is 4000"),
        ("type = '\ud800'", "not Unicode"),
    ],
)
def test_a_wrong_predicate_is_refused_where_it_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        select_nodes(GRAPH, text)


def test_the_longest_chain_that_is_allowed_runs() -> None:
    text = "age = 3"
    while len(text) + len(" or age=3") <= MAX_LENGTH:
        text += " or age=3"

    assert select_nodes(GRAPH, text) == [10]


def test_uuid_ids_compare_in_any_spelling() -> None:
    ids = [uuid.UUID(int=i) for i in (1, 2)]
    graph = Graph.from_arrays(np.empty((2, 0), np.int64), np.ones((2, 1)), None, ids=ids)

    assert select_nodes(graph, f"id = '{str(ids[1]).upper()}'") == [ids[1]]
    with pytest.raises(SelectorError, match="no UUID"):
        select_nodes(graph, "id = 'x'")


def test_labels_by_name_and_a_graph_without_nodes_work() -> None:
    graph = Graph.from_arrays(np.empty((2, 0), np.int64), np.ones((2, 1)), ["cat", None])
    empty = graph.apply(Change(nodes=(0, 1)))

    assert select_nodes(graph, "label = 'cat'") == [0]
    assert select_nodes(empty, "degree > 0 or label is null") == []


# ---- against a naive evaluator with SQL's logic of three values

CELLS = [
    {**row, "label": label, "id": node, "degree": degree}
    for row, label, node, degree in zip(ROWS, LABELS, IDS, DEGREES, strict=True)
]
Tree = tuple[Any, ...]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "age": st.sampled_from([3, 40, -1, 0, 2**53 + 1]),
    "score": st.sampled_from([0.5, -2.0, 1e9, 0.0]),
    "type": st.sampled_from(["account", "it's", "", "b"]),
    "label": st.sampled_from([0, 1, 2]),
    "id": st.sampled_from([10, 11, 14]),
    "degree": st.sampled_from([0, 1, 2]),
}
SIGNS = ("=", "!=", "<>", "<", "<=", ">", ">=")


@st.composite
def leaves(draw: st.DrawFn) -> Tree:
    column = draw(st.sampled_from(sorted(VALUES)))
    value = VALUES[column]
    form = draw(st.sampled_from(["compare", "in", "between", "null"]))
    if form == "null" and column in ("score", "label"):
        return ("null", column, draw(st.booleans()))
    if form == "in":
        return ("in", column, draw(st.booleans()), draw(st.lists(value, min_size=1, max_size=3)))
    if form == "between":
        return ("between", column, draw(st.booleans()), draw(value), draw(value))
    return ("compare", column, draw(st.sampled_from(SIGNS)), draw(value))


TREES = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    ),
    max_leaves=8,
)


def spoken(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def render(tree: Tree) -> str:
    form, *rest = tree
    if form == "not":
        return f"not ({render(rest[0])})"
    if form in ("and", "or"):
        return f"({render(rest[0])}) {form} ({render(rest[1])})"
    column, choice, *values = rest
    if form == "compare":
        return f"{column} {choice} {spoken(values[0])}"
    maybe = "not " if choice else ""
    if form == "null":
        return f"{column} is {maybe}null"
    if form == "in":
        return f"{column} {maybe}in ({', '.join(map(spoken, values[0]))})"
    return f"{column} {maybe}between {spoken(values[0])} and {spoken(values[1])}"


def holds(tree: Tree, row: dict[str, Any]) -> bool | None:
    form, *rest = tree
    if form == "not":
        inner = holds(rest[0], row)
        return None if inner is None else not inner
    if form in ("and", "or"):
        both = {holds(rest[0], row), holds(rest[1], row)}
        decisive = form == "or"
        return decisive if decisive in both else None if None in both else not decisive
    column, choice, *values = rest
    cell = row[column]
    if form == "null":
        return (cell is None) != choice
    if cell is None:
        return None
    if form == "in":
        return (cell in values[0]) != choice
    if form == "between":
        return (values[0] <= cell <= values[1]) != choice
    value = values[0]
    return {
        "=": cell == value, "!=": cell != value, "<>": cell != value, "<": cell < value,
        "<=": cell <= value, ">": cell > value, ">=": cell >= value,
    }[choice]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_arrow_agrees_with_a_naive_evaluator(tree: Tree) -> None:
    wanted = [row["id"] for row in CELLS if holds(tree, row) is True]

    assert select_nodes(GRAPH, render(tree)) == wanted


WORDS = st.sampled_from(
    [*COLUMNS, *SIGNS, "and", "or", "not", "in", "is", "null", "between", "date", "true", "(", ")",
     ",", "3", "-2.5e3", "'a'", "''", "'2023-01-01'", '"two words"', "eval", ";", "\0", "9" * 400]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map(" ".join)))
def test_any_text_is_a_predicate_or_a_selector_error(text: str) -> None:
    try:
        compile_predicate(text, COLUMNS)
    except SelectorError as error:
        assert str(error)
    else:
        assert set(select_nodes(GRAPH, text)) <= set(IDS)
