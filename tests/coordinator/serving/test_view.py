"""A view against the answers of the library, and after a mask against a view made from nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import GraphError, StaleShardError
from cluster.graph import TRAIN, Graph, Located
from cluster.store import LocalStore
from coordinator.aggregators import AGGREGATORS
from coordinator.aggregators.merge import training_labels
from coordinator.config import load_config
from coordinator.erasure import Erasure, present_part
from coordinator.serving.hidden import Hidden
from coordinator.serving.moved import moved_rows
from coordinator.serving.published import Published, load_published
from coordinator.serving.view import View
from coordinator.system import System
from shards.stacked import Stack
from tests.coordinator.serving.published import DESIGNS, config_of, hiding, publish
from tests.coordinator.systems import Workbench, erasure_of_every_kind, planted
from tests.graphs import path_graph, random_graph

Array = npt.NDArray[Any]

STEPS = ("none", "propagate", "correct_and_smooth")


# ---- against the library


def published_of(system: System) -> Published:
    current = system.engine.ledger.current_generation()
    assert current is not None
    return load_published(LocalStore(system.home), *current, system.config)


def masked_part(system: System, erasures: list[Erasure]) -> Located:
    graph = system.engine.live.graph
    change, _ = present_part(graph, Erasure.merge(erasures))
    return graph.locate(change)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", sorted(AGGREGATORS))
def test_a_view_answers_as_the_library_does_before_and_under_a_mask(
    kind: str, step: str, bench: Workbench
) -> None:
    records = planted(3)
    design = {"aggregator.kind": kind, "aggregator.label_step": step, "aggregator.label_steps": 2}
    system = bench.fit(records, design)
    view = View.cold(published_of(system))
    ids = system.graph.ids

    assert_close(view.answer(np.arange(len(ids))), system.predict(ids).proba)

    asked = erasure_of_every_kind(system, records)["several kinds"]
    system.submit(asked)
    masked = view.under(masked_part(system, [asked]))
    left = system.graph.ids
    rows = system.engine.live.graph.rows(left)
    assert_close(masked.answer(rows), system.predict(left).proba)
    assert_close(View.cold(view.published, masked_part(system, [asked])).answer(rows),
                 system.predict(left).proba)  # fmt: skip


def assert_close(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-5
    ordered = np.sort(wanted, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 1e-5
    assert (found.argmax(axis=1) == wanted.argmax(axis=1))[clear].all()


# ---- under a mask, against a cold view


@cache
def generation(design: str, shape: str) -> Published:
    graph = path_graph(26) if shape == "path" else random_graph(2, 60, degree=1)
    return publish(graph, config_of(design))


def rows_left(view: View) -> Array:
    return np.flatnonzero(~view.hidden.removed)


def assert_as_if_made_anew(view: View, located: Located) -> None:
    cold = View.cold(view.published, located)
    rows = rows_left(cold)
    found, wanted = view.answer(rows), cold.answer(rows)
    assert np.abs(found - wanted).max() < 1e-6
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).all()


def distance_from(graph: Graph, row: int) -> Array:
    """``[N]`` steps from a row, a large number where there is no path."""
    found = np.full(graph.num_nodes, 10**6)
    found[row], frontier = 0, [row]
    beside: dict[int, list[int]] = {}
    for u, v in zip(graph.src.tolist(), graph.dst.tolist(), strict=True):
        beside.setdefault(u, []).append(v)
        beside.setdefault(v, []).append(u)
    while frontier:
        frontier = [v for u in frontier for v in beside.get(u, []) if found[v] == 10**6]
        for v in frontier:
            found[v] = min(found[beside_v] for beside_v in beside[v]) + 1
    return found


@pytest.mark.parametrize("shape", ["path", "random"])
@pytest.mark.parametrize("design", DESIGNS)
def test_a_node_erased_at_any_distance_leaves_the_answers_of_a_cold_view(
    design: str, shape: str
) -> None:
    published = generation(design, shape)
    size = published.graph.num_nodes
    for erased in range(size):
        warm = View.cold(published)
        warm.warm(size)

        after = warm.under(hiding(nodes=[erased]))

        assert_as_if_made_anew(after, hiding(nodes=[erased]))


# design -> largest distance of an erased node without a training label whose loss moves an answer
REACH = {
    "mlp, mean": 0,
    "mlp, gate": 2,
    "gcn, gate": 3,
    "gcn, mean, correct and smooth": 7,  # base 3 away, read at 4 steps
    "linear, merge": 2,
    "linear, learned": 8,  # ridge 2 away, read at 6 steps
}


@pytest.mark.parametrize("design", REACH)
def test_only_rows_within_reach_of_what_went_are_computed_again(
    design: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = generation(design, "path")
    graph, labels = published.graph, training_labels(published.graph, published.config)
    erased = int(np.flatnonzero(labels < 0)[2])
    view = View.cold(published)
    view.warm(graph.num_nodes)
    asked: list[int] = []
    plain = Stack.posteriors

    def watched(stack: Stack, inputs: Any, targets: Array) -> Array:
        asked.extend(np.asarray(targets).tolist())
        return plain(stack, inputs, targets)

    monkeypatch.setattr(Stack, "posteriors", watched)
    after = view.under(hiding(nodes=[erased]))

    missing = after.stored.answers.missing(after.since.answers, after.version)
    near = distance_from(graph, erased) <= REACH[design]
    assert set(np.flatnonzero(missing)) <= set(np.flatnonzero(near))
    assert REACH[design] == 0 or missing.sum() > 1
    after.answer(rows_left(after))
    hops = 3 if published.config.shards.model == "gcn" else 0
    assert set(asked) <= set(np.flatnonzero(distance_from(graph, erased) <= hops))


@pytest.mark.parametrize("design", ["linear, learned", "gcn, mean, correct and smooth"])
def test_a_lost_training_label_moves_every_answer_that_reads_class_frequencies(
    design: str,
) -> None:
    published = generation(design, "path")
    labels = training_labels(published.graph, published.config)
    lost = int(np.flatnonzero(labels >= 0)[0])
    view = View.cold(published)
    view.warm(published.graph.num_nodes)
    before = view.answer(np.asarray([25]))

    after = view.under(hiding(labels=[lost]))

    assert after.stored.answers.missing(after.since.answers, after.version).all()
    assert_as_if_made_anew(after, hiding(labels=[lost]))
    assert np.abs(after.answer(np.asarray([25])) - before).max() > 0


@settings(max_examples=60, deadline=None)
@given(
    design=st.sampled_from(sorted(DESIGNS)),
    directed=st.booleans(),
    weighted=st.booleans(),
    layout=st.sampled_from(["dense", "sparse"]),
    seed=st.integers(0, 1000),
)
def test_masks_that_grow_give_the_answers_of_a_cold_view(
    design: str, directed: bool, weighted: bool, layout: Any, seed: int
) -> None:
    graph = random_graph(4, directed=directed, weighted=weighted, layout=layout, degree=2)
    view, rng = View.cold(publish(graph, config_of(design))), np.random.default_rng(seed)
    nodes = rng.permutation(graph.num_nodes)
    edges, cells = rng.permutation(graph.num_edges), rng.integers(0, 6, (2, 4))
    for count in range(1, 4):
        view.answer(rng.choice(rows_left(view), 8))
        located = hiding(
            nodes=nodes[: count - 1],
            edges=edges[:count],
            cells=(nodes[5 : 5 + count], cells[0, :count]),
            labels=nodes[10 : 10 + count],
        )

        view = view.under(located)

        assert_as_if_made_anew(view, located)


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(["gat", "gcn", "gin", "linear", "mlp", "sage", "sgc", "sign"]),
    kind=st.sampled_from(sorted(set(AGGREGATORS) - {"similarity"})),
    step=st.sampled_from(STEPS),
    directed=st.booleans(),
    degree=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
def test_masked_records_are_as_if_they_had_never_been_there(
    model: str, kind: str, step: str, directed: bool, degree: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(seed, 24, degree=degree, directed=directed)
    design = {"shards.model": model, "aggregator.kind": kind, "aggregator.label_step": step}
    sizes = {"shards.hidden": 4, "aggregator.ridge_width": 16, "roles.train": 0.7, "roles.val": 0.1}
    config = load_config(None, {**sizes, **design, "aggregator.label_steps": 2})
    published = publish(graph, config, num_shards=1 + seed % 4)
    nodes, others = rng.permutation(24)[:6], rng.permutation(24)
    masked = hiding(
        nodes=np.sort(nodes[: seed % 6]),
        edges=np.sort(rng.permutation(graph.num_edges)[:2]),
        cells=(others[:3], np.asarray([0, 3, 5])),
        labels=np.sort(others[3:9]),
    )
    view = View.cold(published)
    view.warm(24)

    found = view.under(masked)

    rows = rows_left(found)
    gone = replace(published, graph=graph.without(masked), owner=published.owner[rows])
    wanted = View.cold(gone)
    assert_close(found.answer(rows), wanted.answer(np.arange(len(rows))))
    excluded = {published.shards[-1]} if len(published.shards) > 1 else set()
    assert_close(found.answer(rows, excluded), wanted.answer(np.arange(len(rows)), excluded))
    asked = rng.choice(rows, 5)  # some of them twice
    assert_close(found.answer(asked), wanted.answer(np.searchsorted(rows, asked)))


def test_an_older_view_goes_on_answering_as_it_did() -> None:
    published = generation("gcn, gate", "path")
    rows = np.arange(published.graph.num_nodes)
    old = View.cold(published)
    before = old.answer(rows)
    new = old.under(hiding(nodes=[4]))
    after = new.answer(rows_left(new))

    assert np.allclose(old.answer(rows), before, atol=1e-7)

    assert np.allclose(new.answer(rows_left(new)), after, atol=1e-7)
    assert np.abs(before[rows_left(new)] - after).max() > 1e-4


def test_a_mask_that_hands_records_back_is_put_on_afresh() -> None:
    published = generation("gcn, gate", "path")
    view = View.cold(published, hiding(nodes=[4], labels=[9]))
    view.warm(100)

    back = view.under(hiding(labels=[9]))

    assert back.stored is not view.stored
    assert_as_if_made_anew(back, hiding(labels=[9]))
    assert back.under(hiding(labels=[9])) is back
    assert not np.flatnonzero(back.hidden.removed).size


def test_a_hidden_node_leaves_nothing_but_its_row() -> None:
    graph = random_graph(1, layout="sparse")
    mask = Hidden.of(graph, hiding(nodes=[3, 8], cells=([3, 5], [0, 1])))

    left = mask.applied(graph)

    assert left.x[[3, 8]].nnz == 0 and (left.y[[3, 8]] == -1).all()
    assert not np.isin(left.src, [3, 8]).any() and not np.isin(left.dst, [3, 8]).any()
    assert left.x[5, 1] == 0 and left.num_nodes == graph.num_nodes
    assert mask.cells.tolist() == [5 * 6 + 1]
    assert mask.covers(Hidden.of(graph, hiding(cells=([8], [2]))), graph)
    assert not mask.covers(Hidden.of(graph, hiding(cells=([4], [2]))), graph)


def test_entries_of_erased_rows_are_destroyed() -> None:
    published = generation("mlp, mean", "path")
    view = View.cold(published)
    view.warm(100)

    view.under(hiding(nodes=[4])).forget_hidden()

    found, counts = view.stored.posteriors.lookup(np.asarray([4]), np.zeros(26, np.int64), 9)
    assert not counts.any() and not found.any()


@pytest.mark.parametrize("design", DESIGNS)
def test_the_table_gives_what_the_query_gave(design: str) -> None:
    view = View.cold(generation(design, "random"))
    rows = np.asarray([9, 2, 9, 40])
    alone = View.cold(view.published).answer(rows)
    left = [view.warm(25) for _ in range(4)]

    assert left[0] in (35, 0)  # a wide label step is taken everywhere
    assert left == sorted(left, reverse=True) and left[-1] == 0
    assert np.abs(view.answer(rows) - alone).max() < 1e-6
    assert view.answer(np.empty(0, np.int64)).shape == (0, 3)


# ---- without the votes of stale shards


def without_shard(published: Published, design: str, shard: int) -> Published:
    """The generation that never had a shard's submodel, its owners staying owners."""
    kept = np.asarray([s != shard for s in published.shards])
    stack = published.stack
    assert stack is not None
    weights = [{name: stack.take(name)[s] for name in stack._weights} for s in np.flatnonzero(kept)]
    state = published.aggregator
    if design == "linear, optimal":
        shares = state.tensors["weights"][kept]
        state = replace(state, tensors={"weights": shares / shares.sum()})
    shards = tuple(s for s in published.shards if s != shard)
    stack = Stack(published.config.shards, weights)
    return replace(published, shards=shards, stack=stack, aggregator=state)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_others_share_the_weight_of_a_shard_that_is_excluded(design: str) -> None:
    published = generation(design, "random")
    rows = np.arange(published.graph.num_nodes)
    view = View.cold(published)
    before = view.answer(rows)

    found = view.answer(rows, excluded={1})

    wanted = View.cold(without_shard(published, design, 1)).answer(rows)
    assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(view.answer(rows) - before).max() < 1e-7  # the table holds nothing of it


def test_the_mean_without_a_shard_is_the_mean_of_the_others() -> None:
    view = View.cold(generation("mlp, mean", "path"))
    rows = np.asarray([3, 7])

    found = view.answer(rows, excluded={0})

    assert np.allclose(found, view.posteriors(rows)[1:].mean(axis=0))


def test_nobody_answers_when_every_shard_is_excluded_or_silent() -> None:
    published = generation("mlp, mean", "path")
    with pytest.raises(StaleShardError, match="every shard"):
        View.cold(published).answer(np.asarray([0]), excluded={0, 1, 2})
    with pytest.raises(GraphError, match="silent"):
        View.cold(replace(published, shards=(), stack=None)).answer(np.asarray([0]))


def test_a_change_without_a_label_moves_nobody_far_away() -> None:
    published = generation("gcn, gate", "path")
    graph = published.graph
    nothing = Hidden.of(graph, None)
    edge = Hidden.of(graph, hiding(edges=[12]))  # 12 - 13

    moved = moved_rows(edge.since(nothing, graph, graph), published.config, label_lost=False)

    assert np.flatnonzero(moved.answers).tolist() == [10, 11, 12, 13, 14, 15]
    assert (graph.roles(published.config.roles) == TRAIN).any()
