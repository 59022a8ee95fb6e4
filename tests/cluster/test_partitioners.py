"""Every partitioner keeps one contract; then what each of them promises on its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import Change, Graph
from cluster.config import PartitionConfig, RolesConfig
from cluster.errors import CapacityError, ConfigError, GraphError
from cluster.graph import TRAIN
from cluster.partition import capacity, from_assignment, quality
from cluster.partitioners import PARTITIONERS, find_partitioner, make_partition
from cluster.partitioners.balanced_kmeans import (
    assign_nearest,
    balanced_kmeans,
    propagated_projection,
)
from cluster.partitioners.base import Problem, make_problem
from cluster.partitioners.dense import hashed_uniform, polar_factor, symmetric_eigen
from cluster.partitioners.fair_spectral import fair_embedding
from cluster.partitioners.louvain import find_communities, pack
from cluster.partitioners.metis import repair
from cluster.partitioners.restream import refine

ROLES = RolesConfig()
ALL_TRAIN = RolesConfig(train=1, val=0, test=0)
BOUNDED = sorted(set(PARTITIONERS) - {"hash"})
COMMUNITY = sorted(set(BOUNDED) - {"bilevel"})  # those that look for groups
CORA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cora"

every_method = pytest.mark.parametrize("method", sorted(PARTITIONERS))
every_bounded_method = pytest.mark.parametrize("method", BOUNDED)


def config(method: str, num_shards: int, **options) -> PartitionConfig:
    if method == "bilevel":
        fine = next((n for n in range(2, num_shards + 1) if num_shards % n == 0), 1)
        options = {"fine": fine, **options}
    return PartitionConfig(method=method, num_shards=num_shards, **options)


def silent(done: int, total: int) -> None:
    return None


def graph_of(edges, num_nodes: int, x=None, ids=None) -> Graph:
    x = np.eye(num_nodes, dtype=np.float32) if x is None else x
    pairs = np.asarray(edges, np.int64).reshape(-1, 2).T
    return Graph.from_arrays(pairs, x, np.zeros(num_nodes, np.int64), ids=ids)


def planted(groups: int = 6, size: int = 20, *, seed: int = 0, order_seed: int | None = None):
    """Groups that are dense inside, alike in features, and joined by a few edges.

    ``order_seed`` shuffles the order in which nodes and edges are handed over, nothing else.
    """
    rng = np.random.default_rng(seed)
    n = groups * size
    group = np.arange(n) // size
    inside = group[:, None] == group[None, :]
    upper = np.triu(rng.random((n, n)) < np.where(inside, 0.3, 0.005), 1)
    edges = np.argwhere(upper)
    x = np.eye(groups, dtype=np.float32)[group] + 0.1 * rng.random((n, groups), np.float32)
    ids = rng.permutation(10 * n)[:n]
    if order_seed is not None:
        order = np.random.default_rng(order_seed)
        rows = order.permutation(n)
        x, ids, edges = x[rows], ids[rows], np.argsort(rows)[edges]
        edges = order.permutation(edges)[:, ::-1]
    return graph_of(edges, n, x, ids.tolist())


def two_cliques(size: int) -> Graph:
    """Nodes 0..size-1 and size..2*size-1, joined by the one edge (0, size)."""
    cliques = [(a + i, a + j) for a in (0, size) for i in range(size) for j in range(i)]
    return graph_of([*cliques, (0, size)], 2 * size)


def digests() -> dict[str, str]:
    """A digest of the assignment of every method on one graph; the second process calls it too."""
    graph = planted()
    sparse = Graph.from_arrays(
        np.stack([graph.src, graph.dst]), sp.csr_matrix(graph.x), None, ids=graph.ids
    )
    found = {}
    for method in sorted(PARTITIONERS):
        parts = [make_partition(g, config(method, 5, seed=3), ROLES) for g in (graph, sparse)]
        raw = b"".join(part.shards.tobytes() for part in parts)
        found[method] = hashlib.sha256(raw).hexdigest()
    return found


# ---- the contract of every row of the table


@every_method
@pytest.mark.parametrize("slack", [0.0, 0.1])
@pytest.mark.parametrize("num_shards", [1, 4, 7])
def test_the_training_ids_are_partitioned_within_the_capacity(method, slack, num_shards):
    graph = planted()
    settings_ = config(method, num_shards, max_imbalance=slack)

    partition = make_partition(graph, settings_, ROLES)

    assert partition.ids.tolist() == graph.ids[graph.roles(ROLES) == TRAIN].tolist()
    assert partition.shards.dtype == np.int32
    assert set(partition.shards.tolist()) <= set(range(num_shards))
    if method != "hash":
        assert partition.sizes().max() <= capacity(graph, settings_, ROLES)


def test_another_process_with_other_threads_gives_the_same_assignments():
    code = (
        "import json; from tests.cluster.test_partitioners import digests;"
        "print(json.dumps(digests()))"
    )
    threads = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "PYTHONHASHSEED": "77"}

    other = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(other.stdout.splitlines()[-1]) == digests()


@every_method
def test_the_order_in_which_records_arrive_changes_nothing(method):
    settings_ = config(method, 5)

    first, second = (
        make_partition(planted(order_seed=order_seed), settings_, ROLES) for order_seed in (None, 1)
    )

    assert first.key == second.key


@every_method
def test_the_global_random_state_is_neither_read_nor_moved(method):
    graph = planted()
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    first = make_partition(graph, config(method, 5), ROLES)
    after = np.random.get_state()[1].tolist()
    np.random.seed(2)

    second = make_partition(graph, config(method, 5), ROLES)

    assert before == after
    assert first.key == second.key


@every_method
@pytest.mark.parametrize("seed", [-1, 2**40])
def test_any_integer_is_a_seed(method, seed):
    partition = make_partition(planted(), config(method, 5, seed=seed), ROLES)

    assert len(partition.shards) == len(partition.ids)


@every_method
@pytest.mark.parametrize(("nodes", "shards"), [(1, 1), (2, 1), (2, 2), (3, 2), (9, 9), (30, 20)])
@pytest.mark.parametrize("edges", ["none", "one", "path"])
@pytest.mark.parametrize("slack", [0.0, 0.1])
def test_tiny_and_disconnected_graphs_are_cut_in_silence(
    capfd, method, nodes, shards, edges, slack
):
    path = [(i, i + 1) for i in range(nodes - 1)]
    graph = graph_of({"none": [], "one": path[:1], "path": path}[edges], nodes)
    settings_ = config(method, shards, max_imbalance=slack)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        partition = make_partition(graph, settings_, ALL_TRAIN)

    assert len(partition.shards) == nodes
    assert capfd.readouterr() == ("", "")
    if method != "hash":
        assert partition.sizes().max() <= capacity(graph, settings_, ALL_TRAIN)


@every_bounded_method
def test_isolated_nodes_are_spread_within_the_capacity(method):
    graph = graph_of([(0, 1), (1, 2), (0, 2)], 40)

    partition = make_partition(graph, config(method, 4, max_imbalance=0), ALL_TRAIN)

    assert partition.sizes().tolist() == [10, 10, 10, 10]


@every_bounded_method
def test_a_capacity_beyond_the_graph_is_no_obstacle(method):
    partition = make_partition(planted(), config(method, 5, capacity=10**9), ROLES)

    assert set(partition.shards.tolist()) <= set(range(5))


@every_bounded_method
def test_progress_is_reported_each_round_in_order(method):
    seen: list[tuple[int, int]] = []

    make_partition(planted(), config(method, 5), ROLES, lambda *round_: seen.append(round_))

    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] <= seen[-1][1]


@pytest.mark.parametrize("method", COMMUNITY)
def test_planted_groups_are_found_better_than_by_chance(method):
    graph = planted()

    partition = make_partition(graph, config(method, 6), ALL_TRAIN)

    assert (
        quality(graph, partition).cut
        < 0.5 * quality(graph, make_partition(graph, config("hash", 6), ALL_TRAIN)).cut
    )


@pytest.mark.parametrize("method", ["bekm", "blpa", "louvain", "metis", "restream"])
@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("slack", [0.0, 0.2])
def test_two_cliques_are_split_at_the_bridge(method, size, slack):
    graph = two_cliques(size)

    partition = make_partition(graph, config(method, 2, max_imbalance=slack), ALL_TRAIN)

    shards = partition.shards.tolist()
    assert set(shards[:size]).isdisjoint(shards[size:])
    assert quality(graph, partition).cut == pytest.approx(1 / graph.num_edges)


def test_an_unknown_method_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"choose one of .*'louvain'"):
        find_partitioner("lovain")


def test_more_shards_than_training_nodes_are_refused():
    with pytest.raises(CapacityError, match="2 training nodes"):
        make_partition(graph_of([(0, 1)], 2), config("restream", 3), ALL_TRAIN)


# ---- blpa


@pytest.mark.parametrize("seed", range(3))
def test_label_propagation_makes_progress_when_every_shard_is_full(seed):
    graph = planted()
    settings_ = config("blpa", 6, max_imbalance=0, seed=seed)

    partition = make_partition(graph, settings_, ALL_TRAIN)

    assert partition.sizes().tolist() == [20] * 6
    assert quality(graph, partition).cut < 0.6  # a random balanced start cuts 5 / 6


def test_label_propagation_leaves_isolated_nodes_where_they_started():
    graph = graph_of([], 12)
    problem = make_problem(graph, config("blpa", 3, capacity=12), ALL_TRAIN, silent)

    shards = PARTITIONERS["blpa"](problem)

    assert shards[np.argsort(problem.hashes)].tolist() == [0] * 4 + [1] * 4 + [2] * 4


# ---- bekm


def greedy_grant(points, centroids, rank, most):
    """The published form: sort all (distance, rank, shard) and grant what is free and has room."""
    pairs = []
    for v, point in enumerate(points):
        for c, centroid in enumerate(centroids):
            squared = 0.0
            for a, b in zip(point, centroid, strict=True):
                squared += (a - b) * (a - b)
            pairs.append((squared, int(rank[v]), c, v))
    shards, room = [-1] * len(points), [most] * len(centroids)
    for _, _, c, v in sorted(pairs):
        if shards[v] < 0 and room[c]:
            shards[v] = c
            room[c] -= 1
    return shards


@st.composite
def grant_problems(draw):
    """Few coordinates on a coarse grid, so that equal distances are common."""
    k = draw(st.integers(1, 5))
    n = draw(st.integers(k, 24))
    d = draw(st.integers(1, 3))
    points = draw(st.lists(st.lists(st.integers(0, 6), min_size=d, max_size=d),
                           min_size=n, max_size=n))  # fmt: skip
    chosen = draw(st.permutations(range(n)))[:k]
    rank = draw(st.permutations(range(n)))
    most = -(-n // k) + draw(st.integers(0, 3))
    array = np.asarray(points, np.float64) / 7
    return array, array[chosen], np.asarray(rank, np.int64), most


@given(grant_problems())
@settings(max_examples=150, deadline=None)
def test_deferred_acceptance_equals_the_greedy_grant_over_sorted_pairs(case):
    points, centroids, rank, most = case

    shards = assign_nearest(points, centroids, rank, most)

    assert shards.tolist() == greedy_grant(points, centroids, rank, most)


def test_k_means_keeps_the_id_of_every_row():
    ids = (np.arange(90) * 7 + 1000).tolist()
    kind = np.arange(90) % 3
    graph = graph_of([], 90, np.eye(3, dtype=np.float32)[kind], ids)
    kind_of = dict(zip(ids, kind.tolist(), strict=True))
    seed = next(s for s in range(100) if _starts_apart(graph, kind, s))

    partition = make_partition(graph, config("bekm", 3, seed=seed, capacity=60), ROLES)

    members = [{kind_of[i] for i, s in partition.assignment.items() if s == c} for c in range(3)]
    assert sorted(members, key=min) == [{0}, {1}, {2}]


def _starts_apart(graph: Graph, kind, seed: int) -> bool:
    """Whether the first centroids are of three kinds, so that the answer is clear by hand."""
    problem = make_problem(graph, config("bekm", 3, seed=seed), ROLES, silent)
    return len(set(kind[problem.rows[np.argsort(problem.hashes)[:3]]].tolist())) == 3


def test_k_means_takes_a_given_embedding_by_training_row():
    graph = graph_of([], 8)
    problem = make_problem(graph, config("bekm", 2, max_imbalance=0), ALL_TRAIN, silent)
    left = np.array([0.0, 0.1, 0.2, 0.3])
    embedding = np.concatenate([left, 10 + left])[:, None]

    shards = balanced_kmeans(problem, embedding).tolist()

    assert len(set(shards[:4])) == len(set(shards[4:])) == 1
    assert shards[0] != shards[4]


@pytest.mark.parametrize("embedding", [np.zeros((7, 2)), np.full((8, 2), np.nan), np.zeros(8)])
def test_an_embedding_that_does_not_fit_is_refused(embedding):
    problem = make_problem(graph_of([], 8), config("bekm", 2), ALL_TRAIN, silent)

    with pytest.raises(GraphError, match="each of the 8 training nodes"):
        balanced_kmeans(problem, embedding)


def test_the_default_embedding_reads_training_nodes_only_and_ignores_the_layout():
    graph = planted()
    other_x = graph.x.copy()
    other_x[graph.roles(ROLES) != TRAIN] = 9
    pairs = np.stack([graph.src, graph.dst])
    graphs = [graph, *(Graph.from_arrays(pairs, x, None, ids=graph.ids)
                       for x in (other_x, sp.csr_matrix(graph.x)))]  # fmt: skip

    embeddings = [
        propagated_projection(make_problem(g, config("bekm", 5), ROLES, silent)) for g in graphs
    ]

    assert embeddings[0].shape == (len(embeddings[0]), 64)
    for embedding in embeddings[1:]:
        assert np.array_equal(embeddings[0], embedding)


# ---- fair_spectral


def pure_communities(groups: int = 5, size: int = 60) -> Graph:
    """Dense groups, each of one class of its own."""
    group = np.arange(groups * size) // size
    chance = np.where(group[:, None] == group[None, :], 0.15, 0.005)
    upper = np.triu(np.random.default_rng(0).random(chance.shape) < chance, 1)
    return Graph.from_arrays(np.argwhere(upper).T, np.eye(groups, dtype=np.float32)[group], group)


def test_shards_of_pure_communities_get_every_class_where_louvain_gives_them_one():
    graph = pure_communities()

    fair, communities = (
        quality(graph, make_partition(graph, config(method, 5), ALL_TRAIN))
        for method in ("fair_spectral", "louvain")
    )

    assert communities.fairness == pytest.approx(0.8)
    assert fair.fairness < 0.15
    assert fair.cut < 0.8
    assert fair.balance <= 1.1


def test_isolated_nodes_go_where_their_label_is_short():
    """A triangle of class 0, one corner a shard; 4, 5, 6 are of class 1, 7 and 8 unlabelled."""
    y = [0, 0, 0, 0, 1, 1, 1, -1, -1]
    graph = Graph.from_arrays([[0, 1, 0], [1, 2, 2]], np.eye(9, dtype=np.float32), y)
    problem = make_problem(graph, config("fair_spectral", 3, capacity=3), ALL_TRAIN, silent)

    shards = PARTITIONERS["fair_spectral"](problem)

    assert np.bincount(shards).tolist() == [3, 3, 3]
    assert len(set(shards[:3].tolist())) == 3
    assert sorted(shards[4:7].tolist()) == [0, 1, 2]


def test_the_fair_embedding_is_orthonormal_and_nearer_to_fair_than_its_start():
    graph = pure_communities()
    problem = make_problem(graph, config("fair_spectral", 5), ALL_TRAIN, silent)
    one_hot = np.eye(5)[graph.y]
    target = one_hot.sum(axis=0)[:, None] / np.sqrt(5 * graph.num_nodes)

    embedding = fair_embedding(problem)

    start = polar_factor(hashed_uniform(problem.hashes, 5))
    assert embedding.shape == (300, 5)
    assert np.allclose(embedding.T @ embedding, np.eye(5))
    unfair, at_first = (np.linalg.norm(one_hot.T @ h - target) for h in (embedding, start))
    assert unfair < 0.5 * at_first


def test_twenty_thousand_nodes_are_cut_in_seconds_and_linear_memory():
    rng = np.random.default_rng(0)
    n, k = 20_000, 20
    y = rng.integers(0, 7, n)
    ends = np.sort(rng.integers(0, n, (3 * n, 2)), axis=1)
    edges = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0)
    graph = Graph.from_arrays(edges.T, np.ones((n, 1), np.float32), y)
    make_partition(pure_communities(), config("fair_spectral", 5), ALL_TRAIN)  # compiles
    tracemalloc.start()
    started = time.perf_counter()

    partition = make_partition(graph, config("fair_spectral", k), ALL_TRAIN)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - started < 30
    assert peak < 40 * n * k * 8  # one dense [n, n] matrix is 25 times as much
    assert partition.sizes().max() <= 1100


# ---- dense matrices in a fixed order


@pytest.mark.parametrize(("rows", "columns"), [(30, 1), (30, 6), (6, 6)])
def test_the_polar_factor_is_that_of_the_thin_svd(rows, columns):
    matrix = np.random.default_rng(rows).standard_normal((rows, columns))
    u, _, v = np.linalg.svd(matrix, full_matrices=False)

    assert np.allclose(polar_factor(matrix), u @ v)


def test_the_polar_factor_of_a_matrix_without_full_rank_is_a_partial_isometry():
    column = np.array([[3.0], [4.0]])

    factor = polar_factor(np.hstack([column, column, 0 * column]))

    assert np.allclose(factor, np.hstack([column, column, 0 * column]) / (5 * np.sqrt(2)))
    assert np.array_equal(polar_factor(np.zeros((4, 2))), np.zeros((4, 2)))


@given(st.integers(0, 10**6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_jacobi_s_eigenvalues_and_vectors_are_lapack_s(seed, size):
    raw = np.random.default_rng(seed).integers(-3, 4, (size, size)).astype(float)
    matrix = raw + raw.T

    values, vectors = symmetric_eigen(matrix)

    assert np.allclose(np.sort(values), np.linalg.eigvalsh(matrix))
    assert np.allclose(matrix @ vectors, vectors * values)
    assert np.allclose(vectors.T @ vectors, np.eye(size))


def test_hashed_numbers_belong_to_the_hash_alone_and_fill_the_interval():
    hashes = np.array([5, 6, 2**63 + 1], np.uint64)

    numbers = hashed_uniform(hashes, 4000)

    assert np.array_equal(numbers[1:2], hashed_uniform(hashes[1:2], 4000))
    assert np.array_equal(numbers[:, :7], hashed_uniform(hashes, 7))
    assert (np.abs(numbers) <= 1).all()
    assert np.allclose(numbers.mean(axis=1), 0, atol=0.05)
    assert np.allclose(numbers.var(axis=1), 1 / 3, atol=0.02)


# ---- louvain, restream, metis


def test_louvain_finds_the_cliques_as_communities():
    problem = make_problem(two_cliques(5), config("louvain", 2), ALL_TRAIN, silent)

    community = find_communities(problem).tolist()

    assert len(set(community[:5])) == len(set(community[5:])) == 1
    assert community[0] != community[5]


def test_a_community_over_the_capacity_is_split():
    clique = graph_of([(i, j) for i in range(10) for j in range(i)], 10)

    partition = make_partition(clique, config("louvain", 4, max_imbalance=0.2), ALL_TRAIN)

    assert partition.sizes().max() <= 3


def test_a_piece_that_fits_nowhere_fills_the_emptiest_shards():
    pieces = [np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([6, 7, 8])]

    shards = pack(pieces, num_shards=2, capacity=5)

    assert shards.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1]


def test_pieces_are_packed_largest_first():
    pieces = [np.array([0]), np.array([1, 2]), np.array([3, 4, 5]), np.array([6, 7])]

    shards = pack(pieces, num_shards=2, capacity=4)

    assert shards.tolist() == [0, 1, 1, 0, 0, 0, 1, 1]


def test_refining_never_gives_back_a_larger_cut():
    graph = planted()
    problem = make_problem(graph, config("restream", 6), ALL_TRAIN, silent)
    group = (np.argsort(np.argsort(problem.hashes)) % 6).astype(np.int32)
    cuts = [_cut_edges(problem, group)]

    for passes in (1, 2, 4):
        cuts.append(_cut_edges(problem, refine(problem, group, passes=passes)))

    assert cuts == sorted(cuts, reverse=True)


def _cut_edges(problem: Problem, shards) -> int:
    sources = np.repeat(np.arange(problem.num_nodes), np.diff(problem.indptr))
    return int((shards[sources] != shards[problem.indices]).sum()) // 2


def test_repair_moves_the_cheapest_boundary_node():
    path = (np.array([0, 1, 3, 5, 6]), np.array([1, 0, 2, 1, 3, 2]))
    shards = np.array([0, 0, 0, 1], np.int32)

    repair(path, shards, np.array([3, 1]), 2)

    assert shards.tolist() == [0, 0, 1, 1]


def test_repair_fills_empty_shards_when_no_neighbour_has_room():
    nobody = (np.zeros(10, np.int64), np.zeros(0, np.int64))
    shards = np.zeros(9, np.int32)

    repair(nobody, shards, np.array([9, 0, 0]), 3)

    assert np.bincount(shards).tolist() == [3, 3, 3]


def test_metis_without_pymetis_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)

    with pytest.raises(ConfigError, match=r'pip install "unweave\[metis\]"'):
        make_partition(two_cliques(3), config("metis", 2), ALL_TRAIN)


# ---- partitions


def test_quality_of_a_path_cut_in_the_middle():
    graph = graph_of([(0, 1), (1, 2), (2, 3)], 4)
    partition = from_assignment(graph, np.array([0, 0, 1, 1]), config("blpa", 2), ALL_TRAIN, {})

    measured = quality(graph, partition)

    assert measured.cut == pytest.approx(1 / 3)
    assert measured.balance == 1
    assert measured.modularity == pytest.approx(2 * (1 / 3 - (3 / 6) ** 2))
    assert measured.readers == 1
    assert measured.fairness == 0


def test_fairness_of_a_pure_and_a_mixed_shard_by_hand():
    """Shard 0 holds (1, 0) of the classes, shard 1 (1/3, 2/3), all (3/5, 2/5); shard 3 is empty."""
    y = [0, 0, 0, 1, 1, -1]
    graph = Graph.from_arrays(np.zeros((2, 0), np.int64), np.eye(6, dtype=np.float32), y)
    shards = np.array([0, 0, 1, 1, 1, 2])
    partition = from_assignment(graph, shards, config("blpa", 4), ALL_TRAIN, {})

    assert quality(graph, partition).fairness == pytest.approx((2 / 5 + 4 / 15) / 2)


def test_quality_without_edges_is_finite():
    graph = graph_of([], 3)
    partition = from_assignment(graph, np.array([0, 0, 1]), config("blpa", 2), ALL_TRAIN, {})

    measured = quality(graph, partition)

    assert (measured.cut, measured.modularity) == (0, 0)
    assert measured.balance == pytest.approx(4 / 3)


@pytest.mark.parametrize("ids", [[5, 7, 9, 11], ["a", "b", "c", "d"]])
def test_restrict_keeps_the_owner_of_every_survivor(ids):
    graph = graph_of([(0, 1), (1, 2), (2, 3)], 4, ids=ids)
    partition = from_assignment(graph, np.array([0, 0, 1, 1]), config("blpa", 2), ALL_TRAIN, {})
    smaller = graph.apply(Change(nodes=(ids[3],)))

    kept = partition.restrict(smaller)

    assert kept.assignment == {ids[0]: 0, ids[1]: 0, ids[2]: 1}
    assert kept.names == partition.names
    assert kept.key != partition.key
    assert kept.restrict(smaller) is kept
    assert quality(smaller, kept).cut == pytest.approx(1 / 2)
    assert quality(smaller, kept).balance == pytest.approx(2 / 1.5)


@pytest.mark.parametrize(("guarantee", "same"), [("rederived", True), ("frozen", False)])
def test_renumbering_shards_changes_nothing_only_where_members_name_them(guarantee, same):
    graph = planted()
    settings_ = config("louvain", 5, guarantee=guarantee)
    shards = PARTITIONERS["louvain"](make_problem(graph, settings_, ROLES, silent))
    renumbered = np.array([3, 0, 4, 1, 2], np.int32)[shards]

    first, second = (from_assignment(graph, s, settings_, ROLES, {}) for s in (shards, renumbered))

    assert (first.key == second.key) is same
    assert (first.names == second.names) is True


def test_a_rederived_shard_keeps_its_name_when_another_member_goes():
    graph = planted()
    settings_ = config("louvain", 5, guarantee="rederived")
    problem = make_problem(graph, settings_, ROLES, silent)
    shards = PARTITIONERS["louvain"](problem)
    last = int(problem.rows[np.argmax(graph.hash("shard-name", 0)[problem.rows])])
    before = from_assignment(graph, shards, settings_, ROLES, {})

    smaller = graph.apply(Change(nodes=(graph.ids[last].item(),)))
    after = from_assignment(smaller, shards[problem.rows != last], settings_, ROLES, {})

    assert before.names == after.names


# ---- a real graph


@pytest.mark.skipif(not CORA.exists(), reason="the cora folder is not beside the repository")
@pytest.mark.parametrize(
    ("method", "most"),
    [
        ("blpa", 0.30),
        ("bekm", 0.30),
        ("louvain", 0.12),
        ("metis", 0.12),
        ("restream", 0.25),
        ("fair_spectral", 0.60),
    ],
)
def test_cora_is_cut_as_well_as_measured(method, most):
    import pyarrow.parquet as pq

    nodes, edges = (pq.read_table(CORA / f"{name}.parquet") for name in ("nodes", "edges"))
    graph = Graph.from_arrays(
        np.stack([edges["src"].to_numpy(), edges["dst"].to_numpy()]),
        sp.load_npz(CORA / "features.npz").astype(np.float32),
        nodes["label"].to_numpy(),
        ids=nodes["id"].to_numpy(),
    )

    partition = make_partition(graph, config(method, 20, max_imbalance=0.1), ROLES)

    assert quality(graph, partition).cut < most
    assert quality(graph, partition).balance < 1.15
