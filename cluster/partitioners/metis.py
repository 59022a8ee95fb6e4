"""METIS by pymetis (an extra), repaired where it exceeds the capacity."""

from __future__ import annotations

import heapq
from types import ModuleType

import numpy as np

from cluster.digest import derive_seed
from cluster.errors import ConfigError
from cluster.partitioners.base import Array, Problem
from cluster.partitioners.compiled import Csr, compiled

MOST_IMBALANCE = 1000  # METIS's ufactor, thousandths over the mean


def metis(problem: Problem) -> Array:
    """Assign nodes by METIS's multilevel k-way partitioning under ``problem.capacity``.

    Raises:
        ConfigError: pymetis is not installed.

    Reference:
        Karypis and Kumar, SIAM J. Sci. Comput. 1998.
    """
    pymetis = _import_pymetis()
    if problem.num_shards == 1 or not len(problem.indices):
        shards = np.arange(problem.num_nodes, dtype=np.int32) % problem.num_shards
    else:
        mean = problem.num_nodes / problem.num_shards
        _, parts = pymetis.part_graph(
            problem.num_shards,
            pymetis.CSRAdjacency(problem.indptr, problem.indices),
            recursive=False,
            options=pymetis.Options(
                seed=derive_seed(problem.seed, "metis") % 2**31,
                ufactor=int(np.clip(1000 * (problem.capacity / mean - 1), 1, MOST_IMBALANCE)),
            ),
        )
        shards = np.asarray(parts, np.int32)
    repair(
        (problem.indptr, problem.indices),
        shards,
        np.bincount(shards, minlength=problem.num_shards),
        problem.capacity,
    )
    problem.progress(1, 1)
    return shards


def _import_pymetis() -> ModuleType:
    try:
        import pymetis
    except ImportError as error:
        raise ConfigError(
            "partition.method 'metis' needs pymetis, which is not installed; run "
            '`pip install "unweave[metis]"`, or choose the method louvain'
        ) from error
    module: ModuleType = pymetis
    return module


@compiled
def repair(csr: Csr, shards: Array, sizes: Array, capacity: int) -> None:
    """Move nodes out of shards over the capacity, in place, the cheapest for the cut first.

    ``sizes`` are those of ``shards``; ``len(sizes) * capacity`` must hold all nodes.
    """
    queue = [(0, 0) for _ in range(0)]
    near = np.zeros(len(sizes), np.int64)
    for v in range(len(shards)):
        if sizes[shards[v]] > capacity:
            queue.append((_cheapest(csr, shards, sizes, near, capacity, v)[0], v))
    heapq.heapify(queue)
    while len(queue):
        loss, v = heapq.heappop(queue)
        if sizes[shards[v]] <= capacity:
            continue
        now, target = _cheapest(csr, shards, sizes, near, capacity, v)
        if now > loss:
            heapq.heappush(queue, (now, v))
            continue
        sizes[shards[v]] -= 1
        sizes[target] += 1
        shards[v] = target


@compiled
def _cheapest(
    csr: Csr, shards: Array, sizes: Array, near: Array, capacity: int, v: int
) -> tuple[int, int]:
    """Edges lost by the best move of ``v`` to a shard with room, and that shard."""
    indptr, indices = csr
    neighbours = indices[indptr[v] : indptr[v + 1]]
    for u in neighbours:
        near[shards[u]] += 1
    target = int(np.argmin(sizes))
    for u in neighbours:
        s = shards[u]
        more = near[s] > near[target] or (near[s] == near[target] and s < target)
        if s != shards[v] and sizes[s] < capacity and more:
            target = s
    loss = near[shards[v]] - near[target]
    for u in neighbours:
        near[shards[u]] = 0
    return loss, target
