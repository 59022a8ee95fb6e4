"""Slices: where a training restarts, and that a restart moves no bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.digest import digest, keyed_hash
from cluster.graph import Change
from cluster.store import LocalStore
from shards.actor import ShardActor
from shards.checkpoint import CONTENT, SLICE, SUBMODEL
from shards.config import ShardsConfig
from shards.content import ShardContent, build_content
from shards.jobs import BuildJob, BuildReport
from shards.recipe import Recipe, choose_profile, submodel_key
from shards.slices import slice_epochs, slice_keys
from shards.submodels.table import SUBMODELS
from shards.training import SliceState, Trained, train, train_slices
from tests.graphs import random_graph, two_triangles

SLICES, SEED = 4, 7
MODELS = [case for case in sorted(SUBMODELS) if case[0] == "torch"]


def recipe_of(model: str = "gcn", slices: int = SLICES, epochs: int = 6) -> Recipe:
    config = ShardsConfig(model=model, hidden=8, training_epochs=epochs, slices=slices)
    return Recipe(config, choose_profile(config))


def content_of(num_nodes: int = 60, **change: tuple[int, ...]) -> ShardContent:
    """One shard that owns a whole random graph, less a change."""
    graph = random_graph(0, num_nodes=num_nodes).apply(Change(**change))
    return build_content(graph, np.zeros(graph.num_nodes, np.int32), 0)


@cache
def chain(model: str) -> tuple[Trained, dict[int, SliceState]]:
    """The whole chain from scratch, and the state after every slice but the last."""
    states: dict[int, SliceState] = {}
    trained = train_slices(content_of(), recipe_of(model), SEED, keep=states.__setitem__)
    return trained, states


# ---- the budget


@pytest.mark.parametrize(
    ("epochs", "slices", "expected"),
    [
        (100, 1, (100,)),
        (6, 2, (4, 4)),  # 4 * 1/2 + 4 * 2/2 = 6
        (10, 4, (4, 4, 4, 4)),  # 4 * (1 + 2 + 3 + 4) / 4 = 10
        (5, 3, (2, 3, 2)),  # 2.5 a slice: 2.5, 5, 7.5 rounded down
        (100, 8, (22, 22, 22, 22, 23, 22, 22, 22)),  # 22.2 a slice
        (3, 5, (1, 1, 1, 1, 1)),
    ],
)
def test_the_epoch_budget_is_the_one_worked_out_by_hand(
    epochs: int, slices: int, expected: tuple[int, ...]
) -> None:
    assert slice_epochs(ShardsConfig(training_epochs=epochs, slices=slices)) == expected


@given(epochs=st.integers(33, 500), slices=st.integers(1, 64))
def test_visits_are_those_without_slices_within_one_epoch_and_every_slice_trains(
    epochs: int, slices: int
) -> None:
    budget = slice_epochs(ShardsConfig(training_epochs=epochs, slices=slices))

    visits = sum(e * r / slices for r, e in enumerate(budget, 1))
    assert min(budget) >= 1
    assert max(budget) - min(budget) <= 1
    assert abs(visits - epochs) < 1
    assert sum(budget) == 2 * epochs * slices // (slices + 1)


@pytest.mark.parametrize(
    ("epochs", "slices", "allowed"), [(1, 1, True), (1, 2, False), (8, 15, True), (8, 16, False)]
)
def test_a_budget_that_leaves_a_slice_without_an_epoch_is_refused(
    epochs: int, slices: int, allowed: bool
) -> None:
    if allowed:
        ShardsConfig(training_epochs=epochs, slices=slices)
        return
    with pytest.raises(ValidationError, match="without an epoch; use at least"):
        ShardsConfig(training_epochs=epochs, slices=slices)


# ---- prefixes


def test_a_prefix_holds_the_rows_of_its_slices_and_the_edges_among_them() -> None:
    content = build_content(two_triangles(), np.zeros(6, np.int32), 0)
    share = keyed_hash("slice", 0, range(6)) / 2.0**64
    expected = [int(np.floor(s * 3)) + 1 for s in share]
    assert content.slice_numbers(3).tolist() == expected
    kept = [i for i in range(6) if expected[i] <= 2]

    prefix = content.prefix(2, 3)

    assert prefix.ids.tolist() == kept
    assert prefix.y.tolist() == content.y[kept].tolist()
    assert prefix.x.tolist() == content.x[kept].tolist()
    found = {
        (kept[source], kept[target])
        for target in range(len(kept))
        for source in prefix.indices[prefix.indptr[target] : prefix.indptr[target + 1]]
    }
    pairs = {(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (2, 3)}
    both = pairs | {(v, u) for u, v in pairs}
    assert found == {(u, v) for u, v in both if u in kept and v in kept}


def test_the_last_prefix_is_the_content_itself() -> None:
    content = content_of()

    assert content.prefix(SLICES, SLICES).digest == content.digest
    assert content.prefix(1, 1) is content


def test_halo_rows_are_in_the_first_slice() -> None:
    content = content_of()
    halo = replace(content, owned=np.arange(content.num_nodes) % 2 == 0)

    assert set(halo.slice_numbers(SLICES)[1::2].tolist()) == {1}
    assert set(halo.ids[1::2].tolist()) <= set(halo.prefix(1, SLICES).ids.tolist())


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 59), slices=st.integers(2, 9))
def test_a_row_moves_no_other_row_and_only_the_prefixes_from_its_slice_on(
    at: int, slices: int
) -> None:
    before = content_of()
    after = content_of(nodes=(int(before.ids[at]),))
    number = int(before.slice_numbers(slices)[at])
    recipe = recipe_of(slices=slices)

    kept = np.delete(before.slice_numbers(slices), at)
    old, new = (slice_keys(content, recipe, SEED) for content in (before, after))

    assert after.slice_numbers(slices).tolist() == kept.tolist()
    assert {r for r in old if old[r] != new[r]} == set(range(number, slices))


# ---- keys


def test_a_key_is_made_of_the_prefix_the_key_before_it_the_recipe_the_seed_and_the_number() -> None:
    content, recipe = content_of(), recipe_of(slices=3)
    first = digest("slice", content.prefix(1, 3).digest, "", recipe.key, SEED, 1)
    second = digest("slice", content.prefix(2, 3).digest, first, recipe.key, SEED, 2)

    assert slice_keys(content, recipe, SEED) == {1: first, 2: second}
    assert slice_keys(content, recipe_of(slices=1), SEED) == {}


def test_recipe_seed_and_content_each_move_every_key() -> None:
    content = content_of()
    first = int(np.flatnonzero(content.slice_numbers(SLICES) == 1)[0])
    variants = [
        slice_keys(content, recipe_of(), SEED),
        slice_keys(content, recipe_of(), SEED + 1),
        slice_keys(content, recipe_of("sage"), SEED),
        slice_keys(content_of(nodes=(int(content.ids[first]),)), recipe_of(), SEED),
    ]

    for number in range(1, SLICES):
        assert len({keys[number] for keys in variants}) == len(variants)


def test_a_prefix_without_a_label_leaves_no_checkpoint_and_no_trace() -> None:
    content = content_of()
    unlabelled = replace(content, y=np.where(content.slice_numbers(SLICES) <= 2, -1, content.y))
    states: dict[int, SliceState] = {}

    trained = train_slices(unlabelled, recipe_of(), SEED, keep=states.__setitem__)

    assert set(slice_keys(unlabelled, recipe_of(), SEED)) == set(states) == {3}
    budget = slice_epochs(recipe_of().config)
    assert len(trained.losses) == sum(budget[2:])


# ---- resuming


@pytest.mark.parametrize("model", [model for _, model in MODELS])
def test_a_chain_resumed_after_any_slice_has_the_bits_of_one_from_scratch(model: str) -> None:
    trained, states = chain(model)

    assert train(content_of(), recipe_of(model), SEED).digest == trained.digest
    assert list(states) == [1, 2, 3]
    for number, state in states.items():
        stored = SliceState.from_blob(state.to_blob())
        again = train_slices(content_of(), recipe_of(model), SEED, (number, stored))
        assert again.digest == trained.digest
        assert again.losses == trained.losses


def test_running_statistics_of_batch_norms_are_part_of_the_state() -> None:
    _, states = chain("gin")
    forgotten = {
        name: np.zeros_like(array) if "running_mean" in name else array
        for name, array in states[2].weights.items()
    }
    assert any("running_mean" in name for name in forgotten)

    resumed = replace(states[2], weights=forgotten)
    again = train_slices(content_of(), recipe_of("gin"), SEED, (2, resumed))

    assert again.digest != chain("gin")[0].digest


@pytest.mark.parametrize("lost", ["exp_avg", "exp_avg_sq", "step", "everything"])
def test_a_chain_that_loses_a_part_of_adams_state_has_other_bits(lost: str) -> None:
    trained, states = chain("gcn")
    moments = {
        name: np.zeros_like(array) if name.endswith(f"/{lost}") else array
        for name, array in states[2].moments.items()
    }

    resumed = replace(states[2], moments={} if lost == "everything" else moments)
    again = train_slices(content_of(), recipe_of(), SEED, (2, resumed))

    assert again.digest != trained.digest


def test_the_state_holds_every_parameters_moments_and_the_number_of_steps() -> None:
    _, states = chain("gcn")
    budget = slice_epochs(recipe_of().config)

    for number, state in states.items():
        entries = {name.rsplit("/", 1)[1] for name in state.moments}
        assert entries == {"step", "exp_avg", "exp_avg_sq"}
        assert len(state.moments) == 3 * len(state.weights)
        steps = {float(a) for n, a in state.moments.items() if n.endswith("/step")}
        assert steps == {sum(budget[:number])}


def test_every_slice_draws_dropout_masks_of_its_own() -> None:
    content, recipe = content_of(), recipe_of()
    seen: list[int] = []

    class Spy(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            seen.append(seed)
            return super().manual_seed(seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.training.torch.Generator", Spy)
        train(content, recipe, SEED)

    assert len(set(seen)) == SLICES + 1  # the weights' and one a slice


def test_one_slice_is_the_training_without_slices() -> None:
    content = content_of()
    states: dict[int, SliceState] = {}

    one = train_slices(content, recipe_of(slices=1), SEED, keep=states.__setitem__)

    assert states == {}
    assert len(one.losses) == 6
    assert one.digest != chain("gcn")[0].digest


# ---- the actor


class Bench:
    """A store with one content, built by a ShardActor in this process."""

    def __init__(self, folder: str) -> None:
        self.store = LocalStore(folder)
        self.store.initialise("home")

    def build(self, content: ShardContent, model: str = "gcn") -> BuildReport:
        recipe = recipe_of(model)
        self.store.stage(CONTENT, content.digest, content.to_blob(), fence=1)
        self.store.promote(CONTENT, [content.digest], fence=1)
        key, keys = submodel_key(content.digest, recipe, SEED), slice_keys(content, recipe, SEED)
        home = str(self.store.home)
        job = BuildJob(home, 1, 0, content.digest, key, recipe, SEED, dict(keys))
        report = ShardActor().build(job)
        self.store.promote(SLICE, report.staged_slices, fence=1)
        self.store.promote(SUBMODEL, [key], fence=1)
        return report


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield Bench(str(tmp_path_factory.mktemp("slices")))


@pytest.mark.parametrize("model", ["gcn", "mlp", "linear", "gin"])
@pytest.mark.parametrize("number", range(1, SLICES + 1))
def test_erasing_a_node_of_slice_r_reuses_exactly_the_checkpoints_before_r(
    model: str, number: int, bench: Bench
) -> None:
    content = content_of()
    first = bench.build(content, model)
    node = int(content.ids[content.slice_numbers(SLICES) == number][0])
    rest = content_of(nodes=(node,))

    report = bench.build(rest, model)

    budget = slice_epochs(recipe_of().config)
    assert (first.slices_reused, first.training_epochs) == (0, sum(budget))
    assert report.slices_reused == number - 1
    assert report.training_epochs == sum(budget[number - 1 :])
    assert len(report.staged_slices) == SLICES - number
    assert report.weights_digest == train(rest, recipe_of(model), SEED).digest


def test_a_resumed_submodel_is_the_same_artefact_as_one_from_scratch(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content, other = content_of(), Bench(str(tmp_path_factory.mktemp("scratch")))
    node = int(content.ids[content.slice_numbers(SLICES) == 3][0])
    bench.build(content)

    resumed, scratch = (b.build(content_of(nodes=(node,))) for b in (bench, other))

    assert (resumed.slices_reused, scratch.slices_reused) == (2, 0)
    items = [(SUBMODEL, resumed.submodel_key), *((SLICE, k) for k in resumed.staged_slices)]
    for kind, key in items:
        assert bench.store.get(kind, key).digest() == other.store.get(kind, key).digest()


@pytest.mark.parametrize("damage", ["deleted", "cut", "flipped"])
def test_a_damaged_checkpoint_is_treated_as_absent(damage: str, bench: Bench) -> None:
    content = content_of()
    keys = slice_keys(content, recipe_of(), SEED)
    bench.build(content)
    path = bench.store.path(SLICE, keys[3])
    raw = bytearray(path.read_bytes())
    if damage == "deleted":
        path.unlink()
    else:
        raw[-1] ^= 1
        path.write_bytes(raw if damage == "flipped" else raw[:100])
    node = int(content.ids[content.slice_numbers(SLICES) == SLICES][0])

    report = bench.build(content_of(nodes=(node,)))

    assert report.slices_reused == 2
    assert report.staged_slices == (keys[3],)
    expected = train(content_of(nodes=(node,)), recipe_of(), SEED).digest
    assert report.weights_digest == expected
    bench.store.get(SLICE, keys[3])
