"""Training is a pure function of content, recipe and seed, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.digest import digest
from cluster.errors import NumericsError
from cluster.graph import Change, Graph
from cluster.readers.columns import Columns
from shards import recipe as recipe_module
from shards.config import ADDED_FIELDS, NEUTRAL_FIELDS, ShardsConfig
from shards.content import ShardContent, build_content
from shards.recipe import (
    NUMERICS_VERSION,
    Recipe,
    choose_profile,
    submodel_key,
    submodel_seed,
    worker_environment,
)
from shards.shard_graph import build_index
from shards.submodels.table import SUBMODELS
from shards.training import train
from tests.graphs import random_graph, round_robin, two_triangles

CASES = sorted(SUBMODELS)
NUM_SHARDS = 3
ROOT = Path(__file__).parents[2]


def recipe_of(backend: str, model: str) -> Recipe:
    config = ShardsConfig(backend=backend, model=model, hidden=8, training_epochs=4)
    return Recipe(config, choose_profile(config))


def shards_of(graph: Graph) -> list[ShardContent]:
    owner = round_robin(graph, NUM_SHARDS).owners(graph)
    return [build_content(graph, owner, shard) for shard in range(NUM_SHARDS)]


def train_shard(backend: str, model: str, shard: int) -> str:
    content = shards_of(random_graph(0, num_nodes=60, layout="sparse"))[shard]
    return train(content, recipe_of(backend, model), submodel_seed(0, str(shard))).digest


def first_shards() -> dict[str, str]:
    """Digest of shard 0 under every submodel, in the reverse order of CASES."""
    return {" ".join(case): train_shard(*case, 0) for case in reversed(CASES)}


@pytest.fixture(scope="module")
def other_process() -> dict[str, str]:
    """What :func:`first_shards` gives in a fresh process that trains nothing else."""
    code = "import json; from tests.shards.test_training import first_shards as run; "
    code += "print(json.dumps(run()))"
    environment = {**os.environ, **worker_environment(choose_profile(ShardsConfig()))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    digests: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return digests


@contextmanager
def noise_from_another_thread() -> Iterator[None]:
    """A thread draws from torch's global generator all the time."""
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            torch.rand(100)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# ---- determinism


@pytest.mark.parametrize(("backend", "model"), CASES)
def test_training_again_gives_the_same_bits_in_this_and_another_process(
    backend: str, model: str, other_process: dict[str, str]
) -> None:
    assert train_shard(backend, model, 0) == train_shard(backend, model, 0)
    assert train_shard(backend, model, 0) == other_process[f"{backend} {model}"]


@pytest.mark.parametrize(("backend", "model"), CASES)
def test_training_a_shard_after_another_equals_training_it_alone(
    backend: str, model: str, other_process: dict[str, str]
) -> None:
    train_shard(backend, model, 1)

    after = train_shard(backend, model, 0)

    assert after == other_process[f"{backend} {model}"]


@pytest.mark.parametrize(("backend", "model"), CASES)
def test_shards_have_pairwise_distinct_submodels(backend: str, model: str) -> None:
    digests = [train_shard(backend, model, shard) for shard in range(NUM_SHARDS)]

    assert len(set(digests)) == NUM_SHARDS


@pytest.mark.parametrize(("backend", "model"), CASES)
def test_training_neither_reads_nor_moves_the_global_generators(backend: str, model: str) -> None:
    torch.manual_seed(1)
    expected = train_shard(backend, model, 0)
    torch.manual_seed(2)
    before, before_numpy = torch.random.get_rng_state(), np.random.get_state()[1].copy()

    again = train_shard(backend, model, 0)

    assert again == expected
    assert torch.equal(before, torch.random.get_rng_state())
    assert (before_numpy == np.random.get_state()[1]).all()


def test_draws_in_another_thread_change_no_bit(other_process: dict[str, str]) -> None:
    with noise_from_another_thread():
        digests = first_shards()

    assert digests == other_process


def test_trainings_side_by_side_in_threads_change_no_bit(other_process: dict[str, str]) -> None:
    jobs = [case for case in CASES for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(lambda case: train_shard(*case, 0), jobs))

    assert digests == [other_process[" ".join(case)] for case in jobs]


@pytest.mark.parametrize(("backend", "model"), CASES)
def test_the_seed_and_the_labels_reach_the_weights(backend: str, model: str) -> None:
    content, recipe = shards_of(random_graph(0, num_nodes=60))[0], recipe_of(backend, model)
    relabelled = replace(content, y=np.where(content.y >= 0, 2 - content.y, -1))

    digests = {train(content, recipe, seed).digest for seed in (0, 1)}
    digests.add(train(relabelled, recipe, 0).digest)

    assert len(digests) == 3


def test_training_lowers_the_loss() -> None:
    config = ShardsConfig(hidden=16, training_epochs=60, dropout=0)

    trained = train(
        shards_of(random_graph(0, num_nodes=60))[0], Recipe(config, choose_profile(config)), 0
    )

    assert len(trained.losses) == 60
    assert trained.losses[-1] < trained.losses[0] / 2


def test_labels_of_halo_rows_are_not_learned_from() -> None:
    content, recipe = shards_of(random_graph(0, num_nodes=60))[0], recipe_of("torch", "gcn")
    owned = content.owned.copy()
    owned[:3] = False
    halo = replace(content, owned=owned)

    other = replace(halo, y=np.where(owned, content.y, (content.y + 1) % 3))

    assert train(other, recipe, 0).digest == train(halo, recipe, 0).digest


# ---- refusals


def test_a_silent_content_is_not_trained() -> None:
    graph = two_triangles()
    silent = build_content(graph, np.asarray([0, 0, 0, 0, 0, 1]), 1)

    with pytest.raises(ValueError, match="silent"):
        train(silent, recipe_of("torch", "gcn"), 0)


@pytest.mark.parametrize("name", sorted(worker_environment(choose_profile(ShardsConfig()))))
@pytest.mark.parametrize("value", ["17", None])
def test_a_process_with_another_environment_refuses(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = shards_of(random_graph(0, num_nodes=60))[0]
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    with pytest.raises(NumericsError, match=name):
        train(content, recipe_of("torch", "gcn"), 0)


@pytest.mark.parametrize(
    ("entry", "value", "named"),
    [
        ("machine", "riscv64", "machine"),
        ("cpu_capability", "avx512", "CPU kernels"),
        ("libraries", {"torch": "1.0"}, "torch"),
    ],
)
def test_a_process_with_another_machine_or_library_refuses(
    entry: str, value: object, named: str
) -> None:
    recipe = recipe_of("torch", "gcn")
    other = replace(recipe, profile={**recipe.profile, entry: value})

    with pytest.raises(NumericsError, match=named):
        train(shards_of(random_graph(0, num_nodes=60))[0], other, 0)


# ---- keys

OTHER_VALUES = {
    "model": "sage",
    "backend": "dgl",
    "hidden": 65,
    "layers": 3,
    "training_epochs": 101,
    "lr": 0.02,
    "weight_decay": 0.001,
    "dropout": 0.25,
    "repair": "mirror",
    "slices": 2,
    "device": "cuda",
    "per_actor": 3,
}


def test_every_field_of_the_configuration_moves_the_key_or_is_neutral() -> None:
    assert set(OTHER_VALUES) == set(ShardsConfig.model_fields), "name a value for the new field"
    config = ShardsConfig()
    profile = choose_profile(config)
    key = Recipe(config, profile).key

    for name, value in OTHER_VALUES.items():
        changed = Recipe(config.model_copy(update={name: value}), profile).key
        assert (changed == key) is (name in NEUTRAL_FIELDS), name


@pytest.mark.parametrize("name", sorted(NEUTRAL_FIELDS))
def test_a_neutral_field_changes_no_bit(name: str) -> None:
    content, recipe = shards_of(random_graph(0, num_nodes=60))[0], recipe_of("torch", "gcn")
    other = replace(recipe, config=recipe.config.model_copy(update={name: OTHER_VALUES[name]}))

    assert other.config != recipe.config
    assert train(content, other, 0).digest == train(content, recipe, 0).digest


def test_a_field_added_later_leaves_the_key_as_it_was_before_at_its_neutral_value() -> None:
    first_fields = {
        "model": "gcn",
        "backend": "torch",
        "hidden": 64,
        "layers": 2,
        "training_epochs": 100,
        "lr": 0.01,
        "weight_decay": 5e-4,
        "dropout": 0.5,
        "device": "cpu",
    }
    config = ShardsConfig.model_validate(first_fields)
    profile = choose_profile(config)

    assert Recipe(config, profile).key == digest("recipe", first_fields, profile)
    assert ADDED_FIELDS.items() <= config.model_dump().items()


def test_every_entry_of_the_profile_moves_the_key() -> None:
    recipe = recipe_of("dgl", "gcn")

    for name in recipe.profile:
        assert replace(recipe, profile={**recipe.profile, name: "other"}).key != recipe.key, name
    for name in recipe.profile["libraries"]:
        libraries = {**recipe.profile["libraries"], name: "0"}
        other = replace(recipe, profile={**recipe.profile, "libraries": libraries})
        assert other.key != recipe.key, name


def test_a_recipe_holds_nothing_but_configuration_and_profile() -> None:
    assert {field.name for field in fields(Recipe)} == {"config", "profile"}


def test_the_numerics_version_is_in_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe_of("torch", "gcn").key
    monkeypatch.setattr(recipe_module, "NUMERICS_VERSION", NUMERICS_VERSION + 1)

    assert recipe_of("torch", "gcn").key != before


def test_content_recipe_and_seed_each_move_a_submodels_key() -> None:
    a, b = recipe_of("torch", "gcn"), recipe_of("torch", "sage")

    keys = {
        submodel_key("content", a, 0),
        submodel_key("other", a, 0),
        submodel_key("content", b, 0),
        submodel_key("content", a, 1),
    }

    assert len(keys) == 4
    assert len({submodel_seed(0, "0"), submodel_seed(0, "1"), submodel_seed(1, "0")}) == 3


# ---- the index and the weights agree


def contents_and_weights(graph: Graph, backend: str, model: str) -> list[tuple[str, str | None]]:
    """Digests of both for every shard; a silent shard has no weights."""
    partition = round_robin(random_graph(0, num_nodes=24), NUM_SHARDS).restrict(graph)
    owner, recipe = partition.owners(graph), recipe_of(backend, model)
    found: list[tuple[str, str | None]] = []
    for shard in range(NUM_SHARDS):
        content = build_content(graph, owner, shard)
        trained = None if content.is_silent else train(content, recipe, shard).digest
        found.append((content.digest, trained))
    return found


@settings(max_examples=40, deadline=None)
@given(case=st.sampled_from(CASES), kind=st.integers(0, 3), at=st.integers(0, 23))
def test_weights_move_only_where_the_index_and_the_keys_say(
    case: tuple[str, str], kind: int, at: int
) -> None:
    graph = random_graph(0, num_nodes=24)
    node = graph.ids[at]
    edge = (graph.ids[graph.src[at]], graph.ids[graph.dst[at]])
    change = [
        Change(nodes=(node,)),
        Change(edges=(edge,)),
        Change(features=((node, None),)),
        Change(labels=(node,)),
    ][kind]
    readers = build_index(graph, round_robin(graph, NUM_SHARDS)).of_change(graph, change)

    before = contents_and_weights(graph, *case)
    after = contents_and_weights(graph.apply(change), *case)

    moved_keys = {i for i in range(NUM_SHARDS) if before[i][0] != after[i][0]}
    moved_bits = {i for i in range(NUM_SHARDS) if before[i][1] != after[i][1]}
    assert moved_bits <= moved_keys <= readers


# ---- golden digests

GOLDEN_TORCH, GOLDEN_LEVEL, GOLDEN_VERSION = "2.13.0+cpu", "avx2", 1
GOLDEN = {
    ("dgl", "gat"): "ea3f277e7c97d04134e36c16e80d6a414529a474a91117b84983ffb2a0c71a72",
    ("dgl", "gcn"): "3e967b601a0750cd52c1fb173c461736da0128459fdd16086b80a14e3e18f3c2",
    ("dgl", "gin"): "b461481abaa07dba5499dd493dfe68370df6aa9a146a9603699cb11fea52885e",
    ("dgl", "sage"): "ea25de17e83c5a6ddbbb0c4149d9fe158b12bdbf9a1713cafb0294d9d2dd000c",
    ("torch", "gat"): "0caf1f9166e877a8f83a885fc36ee662d24cf753ce6478083b234eca28dd3290",
    ("torch", "gcn"): "3e967b601a0750cd52c1fb173c461736da0128459fdd16086b80a14e3e18f3c2",
    ("torch", "gin"): "b461481abaa07dba5499dd493dfe68370df6aa9a146a9603699cb11fea52885e",
    ("torch", "linear"): "5c813bd00d19d4215f17154ab5dd8a5f89b9a78ac81350c98e03a698f4bc2376",
    ("torch", "mlp"): "4652c17ae8a90b73a5e4cc4ad0ee59206dbad7fc79b4af0765ebdd6da1d7be02",
    ("torch", "sage"): "ea25de17e83c5a6ddbbb0c4149d9fe158b12bdbf9a1713cafb0294d9d2dd000c",
    ("torch", "sgc"): "63fd199bfae5e36e526a380a7dfc1a463bc3c485c9b6e51042acd11d967dd70c",
    ("torch", "sign"): "b6551101d66c83efab1f4e985d423d107de362aba6818fa2c510d5c62e39e8a9",
}


def golden_digest(backend: str, model: str) -> str:
    training = {"training_epochs": 3, "lr": 0.01, "weight_decay": 5e-4}
    config = ShardsConfig(backend=backend, model=model, hidden=4, **training)
    recipe = Recipe(config, choose_profile(config))
    columns = Columns(weight=np.arange(1.0, 8.0))
    graphs = two_triangles(), two_triangles(sparse=True, directed=True, columns=columns)
    contents = [build_content(graph, np.zeros(6, np.int32), 0) for graph in graphs]
    return digest("golden", [train(content, recipe, seed=7).digest for content in contents])


@pytest.mark.parametrize(("backend", "model"), CASES)
def test_code_changes_no_bit_without_a_new_numerics_version(backend: str, model: str) -> None:
    here = (torch.__version__, choose_profile(ShardsConfig())["cpu_capability"])
    if here != (GOLDEN_TORCH, GOLDEN_LEVEL):
        pytest.skip(f"digests were recorded with {GOLDEN_TORCH} on {GOLDEN_LEVEL}, this is {here}")

    found = golden_digest(backend, model)

    assert (NUMERICS_VERSION, found) == (GOLDEN_VERSION, GOLDEN.get((backend, model))), (
        "the bits of a training changed: raise shards.recipe.NUMERICS_VERSION and record the new "
        f"version and digest here; {(backend, model)} now gives {found}"
    )
