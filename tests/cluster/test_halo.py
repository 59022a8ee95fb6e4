"""Halos: who examines whom, who enters, and which arcs and thresholds are chosen, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import HaloConfig, PartitionConfig, RolesConfig
from cluster.digest import derive_seed
from cluster.graph import Change, Graph
from cluster.halo import Halo, examine
from cluster.halo_choice import attach_halo, clique_arcs, rank_arcs, retained
from cluster.home import load_partition, partition_blob
from cluster.partition import Partition, quality
from cluster.partitioners.registry import make_partition
from cluster.readers.columns import Columns
from cluster.store import LocalStore
from tests.graphs import assign, path_graph, random_graph, random_halo, round_robin

ALL_TRAIN = RolesConfig(train=1, val=0, test=0)


@pytest.fixture
def graph() -> Graph:
    """The path 0-1-2-3-4-5."""
    return path_graph(6)


@pytest.fixture
def partition(graph: Graph) -> Partition:
    """Two neighbours a shard."""
    return assign(graph, {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}, num_shards=3)


def config(method: str = "louvain", num_shards: int = 3, **halo: Any) -> PartitionConfig:
    return PartitionConfig(method=method, num_shards=num_shards, halo=HaloConfig(**halo))


def rows_by_shard(graph: Graph, partition: Partition, *, read: bool) -> list[list[int]]:
    """Per shard the foreign ids it examines or reads."""
    found, owner = partition.examined(graph), partition.owners(graph)
    rows = np.repeat(np.arange(graph.num_nodes), np.diff(found.indptr))
    wanted = (owner[rows] != found.shards) & (found.read | (not read))
    return [
        graph.ids[rows[wanted & (found.shards == shard)]].tolist()
        for shard in range(partition.num_shards)
    ]


# ---- candidates


@pytest.mark.parametrize(
    ("hops", "candidates"),
    [
        (1, [[2], [1, 4], [3]]),
        (2, [[2, 3], [0, 1, 4, 5], [2, 3]]),
        (3, [[2, 3, 4], [0, 1, 4, 5], [1, 2, 3]]),
    ],
)
def test_candidates_are_the_foreign_nodes_within_so_many_steps(
    hops: int, candidates: list[list[int]], graph: Graph, partition: Partition
) -> None:
    with_halo = replace(partition, halo=Halo(hops, np.ones(3)))

    assert rows_by_shard(graph, with_halo, read=False) == candidates
    assert rows_by_shard(graph, with_halo, read=True) == candidates


def test_a_path_through_a_shard_that_may_not_be_read_does_not_count(
    graph: Graph, partition: Partition
) -> None:
    arcs = np.asarray([[0, 0, 1], [0, 0, 1], [0, 1, 0]], bool)

    with_halo = replace(partition, halo=Halo(3, np.ones(3), arcs))

    assert rows_by_shard(graph, with_halo, read=False) == [[], [4, 5], [2, 3]]


def test_a_node_that_no_shard_owns_is_no_candidate_and_bridges_nothing(graph: Graph) -> None:
    partition = assign(graph, {0: 0, 1: 0, 3: 1, 4: 1, 5: 1}, num_shards=2)

    with_halo = replace(partition, halo=Halo(3, np.ones(2)))

    assert rows_by_shard(graph, with_halo, read=False) == [[], []]


def test_messages_go_along_directed_edges_only(partition: Partition) -> None:
    graph = path_graph(6, directed=True)

    with_halo = replace(partition, halo=Halo(2, np.ones(3)))

    assert rows_by_shard(graph, with_halo, read=False) == [[], [0, 1], [2, 3]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_candidates_agree_with_a_search_from_every_shard(seed: int, directed: bool) -> None:
    graph = random_graph(seed, 14, degree=1, directed=directed)
    partition = replace(round_robin(graph, 3), halo=random_halo(seed, 3))
    halo, owner = partition.halo, partition.owners(graph)
    if halo is None or halo.labels:
        return
    found = rows_by_shard(graph, partition, read=False)
    edges = list(zip(graph.src.tolist(), graph.dst.tolist(), strict=True))
    if not directed:
        edges += [(v, u) for u, v in edges]

    for shard in range(3):
        inside = set(np.flatnonzero(owner == shard).tolist())
        own = set(inside)
        for _ in range(halo.hops):
            near = {u for u, v in edges if v in inside and owner[u] >= 0}
            may = {u for u in near if halo.arcs is None or halo.arcs[shard, owner[u]]}
            inside |= may
        assert found[shard] == graph.ids[sorted(inside - own)].tolist()


# ---- entry


def test_a_candidate_enters_if_its_hash_is_under_the_threshold_of_the_shard() -> None:
    graph = random_graph(1, 400, degree=4)
    partition = round_robin(graph, 4)
    everyone = rows_by_shard(graph, replace(partition, halo=Halo(2, np.ones(4))), read=True)
    thresholds = np.asarray([0.0, 0.25, 0.5, 1.0])

    some = rows_by_shard(graph, replace(partition, halo=Halo(2, thresholds)), read=True)

    shares = [len(a) / len(b) for a, b in zip(some, everyone, strict=True)]
    assert all(set(a) <= set(b) for a, b in zip(some, everyone, strict=True))
    assert shares == pytest.approx([0, 0.25, 0.5, 1], abs=0.08)


def test_shards_choose_independently_of_each_other() -> None:
    graph = random_graph(1, 400, degree=4)
    partition = replace(round_robin(graph, 2), halo=Halo(3, np.full(2, 0.5)))
    seeded = replace(partition, halo=Halo(3, np.full(2, 0.5), seed=1))

    assert rows_by_shard(graph, partition, read=True) != rows_by_shard(graph, seeded, read=True)
    assert derive_seed(0, "halo", "0") != derive_seed(0, "halo", "1")


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_whether_a_candidate_enters_never_depends_on_another_node(
    seed: int, data: st.DataObject
) -> None:
    graph = random_graph(seed, 16, degree=2)
    partition = replace(round_robin(graph, 3), halo=random_halo(seed, 3))
    gone = data.draw(st.sampled_from(graph.ids.tolist()))
    smaller = graph.apply(Change(nodes=(gone,)))
    kept = partition.restrict(smaller)

    for shard in range(3):
        seen, read = (set(rows_by_shard(graph, partition, read=r)[shard]) for r in (False, True))
        still, then = (set(rows_by_shard(smaller, kept, read=r)[shard]) for r in (False, True))
        assert still <= seen - {gone}
        assert then == read & still


# ---- thresholds


@pytest.mark.parametrize(
    ("hops", "thresholds"), [(1, [1, 0.5, 1]), (2, [0.5, 0.25, 0.5]), (3, [1 / 3, 0.25, 1 / 3])]
)
def test_a_threshold_is_the_budget_over_the_candidates_at_creation(
    hops: int, thresholds: list[float], graph: Graph, partition: Partition
) -> None:
    wanted = config(hops=hops, budget=0.5)  # half of the two nominal nodes of a shard: one

    halo = attach_halo(graph, partition, wanted, ALL_TRAIN).halo

    assert halo is not None
    assert halo.thresholds.tolist() == pytest.approx(thresholds)
    assert halo.arcs is None


def test_an_oblivious_threshold_reads_declared_numbers_only(graph: Graph) -> None:
    wanted = config("hash", hops=2, budget=0.5)
    smaller = graph.apply(Change(nodes=(0, 3)))

    halos = [make_partition(g, wanted, ALL_TRAIN).halo for g in (graph, smaller)]

    for halo in halos:
        assert halo is not None
        assert halo.thresholds.tolist() == [0.25] * 3  # 1 of the 6 * (1 - 1/3) foreign nodes


def test_a_frozen_halo_stays_when_records_go_and_a_rederived_one_follows() -> None:
    graph = random_graph(3, 60)
    smaller = graph.apply(Change(nodes=tuple(graph.ids[:20].tolist())))
    frozen = config(hops=1, budget=0.2)
    rederived = frozen.model_copy(update={"guarantee": "rederived"})

    made = make_partition(graph, frozen, ALL_TRAIN)
    before, after = (make_partition(g, rederived, ALL_TRAIN) for g in (graph, smaller))

    assert made.restrict(smaller).halo is made.halo is not None
    assert before.halo is not None
    assert after.halo is not None
    assert before.halo.thresholds.tolist() != after.halo.thresholds.tolist()


@pytest.mark.parametrize("halo", [{}, {"hops": 2}, {"budget": None}, {"arcs": "clique"}], ids=str)
def test_no_hops_or_no_budget_is_no_halo_and_moves_no_key(
    halo: dict[str, Any], graph: Graph, partition: Partition
) -> None:
    attached = attach_halo(graph, partition, config(**halo), ALL_TRAIN)

    assert attached is partition
    assert attached.halo is None


# ---- arcs


@pytest.mark.parametrize(
    ("max_cost", "arcs"),
    [
        (1.0, []),
        (1.5, [(0, 1)]),  # 12 + 5 of 18
        (2.0, [(0, 1), (1, 0)]),  # 22 of 24
        (3.0, [(0, 1), (1, 0), (1, 2), (2, 1)]),  # 12 + 5 + 5 + 7 + 5 = 34 of 36
    ],
)
def test_arcs_are_taken_while_the_expected_cost_of_an_erasure_is_within_the_bound(
    max_cost: float, arcs: list[tuple[int, int]], graph: Graph, partition: Partition
) -> None:
    wanted = config(hops=1, budget=None, arcs="ranked", max_cost=max_cost)

    halo = attach_halo(graph, partition, wanted, ALL_TRAIN).halo

    assert halo is not None
    assert halo.arcs is not None
    assert list(zip(*(axis.tolist() for axis in halo.arcs.nonzero()), strict=True)) == arcs


def test_the_arc_that_shows_more_edge_weight_comes_first(partition: Partition) -> None:
    weight = np.asarray([1, 1, 1, 5, 1], np.float32)  # the edge 3-4 weighs most
    graph = path_graph(6, columns=Columns(weight=weight))
    wanted = config(hops=1, budget=None, arcs="ranked", max_cost=1.5)

    halo = attach_halo(graph, partition, wanted, ALL_TRAIN).halo

    assert halo is not None
    assert halo.arcs is not None
    assert np.argwhere(halo.arcs).tolist() == [[1, 2]]


def test_a_budget_bounds_what_an_arc_costs(partition: Partition) -> None:
    visible = np.asarray([[0, 1, 4], [0, 0, 0], [0, 0, 0]], float)
    candidates = np.asarray([[0, 1, 4], [0, 0, 0], [0, 0, 0]])

    unlimited = rank_arcs(visible, candidates, partition, rows=None, max_cost=1.5)
    limited = rank_arcs(visible, candidates, partition, rows=1, max_cost=1.5)

    assert np.argwhere(unlimited).tolist() == [[0, 1]]  # 12 + 5 of 18; (0, 2) would add 32
    assert np.argwhere(limited).tolist() == [[0, 1], [0, 2]]  # never more than one foreign row


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.1, 1.5, 2.5]), st.integers(1, 2))
def test_ranked_arcs_keep_the_expected_cost_within_the_bound(
    seed: int, max_cost: float, hops: int
) -> None:
    graph = random_graph(seed, 40)
    wanted = config("metis", 4, hops=hops, budget=None, arcs="ranked", max_cost=max_cost)
    partition = attach_halo(graph, round_robin(graph, 4, left_out=50), wanted, ALL_TRAIN)

    foreign = [len(ids) for ids in rows_by_shard(graph, partition, read=True)]

    sizes = partition.sizes()
    assert ((sizes + foreign) ** 2).sum() <= max_cost * (sizes**2).sum()


def test_a_clique_holds_the_pairs_within_a_coarse_shard() -> None:
    assert np.argwhere(clique_arcs(np.asarray([0, 0, 1, 1, 2, -1, -1]))).tolist() == [
        [0, 1],
        [1, 0],
        [2, 3],
        [3, 2],
    ]


def test_a_rederived_clique_follows_the_shards_when_they_are_renumbered() -> None:
    graph = random_graph(5, 60)
    frozen = config("blpa", 4, hops=1, budget=None, arcs="clique")
    rederived = frozen.model_copy(update={"guarantee": "rederived"})

    a, b = (make_partition(graph, c, ALL_TRAIN) for c in (frozen, rederived))

    def pairs(partition: Partition) -> set[frozenset[tuple[int, ...]]]:
        assert partition.halo is not None
        assert partition.halo.arcs is not None
        members = [tuple(partition.ids[partition.shards == s].tolist()) for s in range(4)]
        return {frozenset({members[i], members[j]}) for i, j in np.argwhere(partition.halo.arcs)}

    assert a.shards.tolist() != b.shards.tolist()
    assert pairs(a) == pairs(b)


# ---- as an artefact


def test_every_part_of_a_halo_moves_the_key_of_the_partition(partition: Partition) -> None:
    base = Halo(1, np.ones(3))
    others = [
        None,
        Halo(2, np.ones(3)),
        Halo(1, np.asarray([1, 0.5, 1])),
        Halo(1, np.ones(3), np.ones((3, 3), bool)),
        Halo(1, np.ones(3), labels=True),
        Halo(1, np.ones(3), seed=1),
    ]

    keys = {replace(partition, halo=halo).key for halo in [base, *others]}

    assert len(keys) == 7
    assert replace(partition, halo=Halo(1, np.ones(3))).key == replace(partition, halo=base).key


@pytest.mark.parametrize("arcs", [None, np.asarray([[0, 1], [0, 0]], bool)])
def test_a_halo_survives_the_store(arcs: Any, tmp_path: Path) -> None:
    halo = Halo(2, np.asarray([0.25, 1.0]), arcs, seed=3)
    partition = replace(assign(path_graph(2), {0: 0, 1: 1}, 2), halo=halo)
    store = LocalStore(tmp_path)
    store.initialise("test")

    store.stage("partition", str(partition.key), partition_blob(partition), fence=1)
    store.promote("partition", [str(partition.key)], fence=1)
    back = load_partition(store, str(partition.key))

    assert back.key == partition.key
    assert back.halo is not None
    assert back.halo.seed == 3


def test_quality_counts_the_mean_number_of_readers(graph: Graph, partition: Partition) -> None:
    with_halo = replace(partition, halo=Halo(1, np.asarray([0.0, 1.0, 1.0])))

    assert quality(graph, partition).readers == 1
    assert quality(graph, with_halo).readers == pytest.approx(9 / 6)  # 1 and 4, and 3


def test_what_was_chosen_from_the_data_is_named_as_retained_under_frozen(
    graph: Graph, partition: Partition
) -> None:
    ranked = config(hops=1, budget=0.5, arcs="ranked", max_cost=2.0)
    full = config(hops=1, budget=None)
    oblivious = config("hash", hops=1, budget=0.5)

    def names(given: Partition, wanted: PartitionConfig) -> list[str]:
        return [entry["name"] for entry in retained(given, wanted)]

    assert names(partition, config()) == ["partition"]
    assert names(attach_halo(graph, partition, full, ALL_TRAIN), full) == ["partition"]
    assert names(attach_halo(graph, partition, ranked, ALL_TRAIN), ranked) == [
        "partition",
        "halo thresholds",
        "halo arcs",
    ]
    assert names(make_partition(graph, oblivious, ALL_TRAIN), oblivious) == []


def test_without_a_halo_every_row_is_examined_by_its_owner_alone() -> None:
    graph = path_graph(4)

    found = examine(graph, np.asarray([1, -1, 0, 1], np.int32), ("a", "b"), None)

    assert found.indptr.tolist() == [0, 1, 1, 2, 3]
    assert found.shards.tolist() == [1, 0, 1]
    assert found.read.all()
