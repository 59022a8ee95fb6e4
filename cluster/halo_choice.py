"""How a partition gets its halo: which shards a shard may read, and the entry thresholds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.config import HaloConfig, PartitionConfig, RolesConfig
from cluster.errors import ConfigError
from cluster.graph import Graph
from cluster.halo import Halo, count_candidates, training_edges
from cluster.partition import Partition, nominal_size

Array = npt.NDArray[Any]

ROUNDING = 1e-9  # a budget of 0.1 x 30 rows is 3 rows, not 4


def attach_halo(
    graph: Graph,
    partition: Partition,
    config: PartitionConfig,
    roles: RolesConfig,
    coarse: Array | None = None,
) -> Partition:
    """Give a partition the halo that the configuration wants; without one, return it as it is.

    Under ``oblivious`` arcs and thresholds come from declared numbers alone; otherwise a threshold
    is the budget over the shard's candidates in ``graph``.

    Args:
        graph: the graph that the partition assigns.
        partition: a partition without a halo.
        config: how the graph is cut.
        roles: who is a training node; only its declared shares are used.
        coarse: ``[k]`` coarse shard of each shard; by default ``shard // config.fine``.
    """
    wanted, num_shards = config.halo, partition.num_shards
    if not wanted.is_on:
        return partition
    groups = default_coarse(config) if coarse is None else coarse
    if wanted.labels:
        halo = Halo(0, np.ones(num_shards), clique_arcs(groups), labels=True, seed=config.seed)
        return replace(partition, halo=halo)
    nominal = nominal_size(graph, config, roles)
    rows = None if wanted.budget is None else max(1, math.ceil(wanted.budget * nominal - ROUNDING))
    arcs = None
    if wanted.arcs == "clique":
        arcs = clique_arcs(groups)
    elif wanted.arcs == "ranked":
        arcs = _ranked(graph, partition, wanted, rows)
    thresholds = np.ones(num_shards)
    if rows is not None:
        candidates = _candidates(graph, partition, wanted, arcs, nominal)
        thresholds = np.minimum(1.0, rows / np.maximum(candidates, 1.0))
    return replace(partition, halo=Halo(wanted.hops, thresholds, arcs, seed=config.seed))


def default_coarse(config: PartitionConfig) -> Array:
    """``[k]`` coarse shard of each shard as two-level partitioners number them."""
    return np.arange(config.num_shards) // config.fine


def clique_arcs(coarse: Array) -> Array:
    """``[k, k]`` bool: every pair within a coarse shard; negative for a shard in none."""
    same = (coarse[:, None] == coarse[None, :]) & (coarse >= 0)
    arcs: Array = same & ~np.eye(len(coarse), dtype=bool)
    return arcs


def _candidates(
    graph: Graph, partition: Partition, wanted: HaloConfig, arcs: Array | None, nominal: float
) -> Array:
    """``[k]`` candidates of each shard; under ``oblivious`` all that declared numbers allow."""
    num_shards = partition.num_shards
    if partition.guarantee == "oblivious":
        readable = np.full(num_shards, num_shards - 1) if arcs is None else arcs.sum(axis=1)
        return np.asarray(readable * nominal, np.float64)
    owner = partition.owners(graph)
    counts = count_candidates(graph, owner, num_shards, wanted.hops, arcs)
    return np.asarray(counts.sum(axis=1), np.float64)


def _ranked(graph: Graph, partition: Partition, wanted: HaloConfig, rows: int | None) -> Array:
    num_shards, owner = partition.num_shards, partition.owners(graph)
    source, target, weight = training_edges(graph, owner)
    arc = owner[target].astype(np.int64) * num_shards + owner[source]
    visible = np.bincount(arc, weights=weight, minlength=num_shards**2)
    candidates = count_candidates(graph, owner, num_shards, wanted.hops, None)
    assert wanted.max_cost is not None
    return rank_arcs(
        visible.reshape(num_shards, num_shards),
        candidates,
        partition,
        rows=rows,
        max_cost=wanted.max_cost,
    )


def rank_arcs(
    visible: Array, candidates: Array, partition: Partition, *, rows: int | None, max_cost: float
) -> Array:
    """Choose arcs by gain per cost, within a bound on the expected cost of one erasure.

    Retraining a shard costs the rows it reads, own and foreign; each of them is as likely to be
    erased, so one uniform erasure costs ``sum_i (n_i + r_i)^2`` over all rows, with r_i foreign
    rows read. Arcs are taken by falling ratio of visible edge weight to what the arc alone would
    add; one that would break the bound is left out.

    Args:
        visible: ``[k, k]`` weight of the boundary edges from rows of j into rows of i.
        candidates: ``[k, k]`` records of j that are candidates of i, over all arcs.
        partition: sizes and names; equal ratios go by the names.
        rows: foreign rows a shard may read; None for no limit.
        max_cost: bound, relative to the cost without a halo.

    Returns:
        ``[k, k]`` bool arcs.

    Reference:
        Dukler et al. (SAFE), ICCV 2023, choose a graph over shards for an expected cost. The
        greedy choice by visible edges is ours.
    """
    limit = np.inf if rows is None else float(rows)
    sizes = partition.sizes().astype(np.float64)
    arcs, read = np.zeros(visible.shape, bool), np.zeros(len(sizes))
    names = np.argsort(np.argsort(np.asarray(partition.names)))
    i, j = np.nonzero((visible > 0) & (candidates > 0) & ~np.eye(len(sizes), dtype=bool))
    alone = np.minimum(candidates[i, j], limit)
    gain = visible[i, j] * alone / candidates[i, j]
    ratio = gain / ((sizes[i] + alone) ** 2 - sizes[i] ** 2)
    cost = float((sizes**2).sum())
    bound = max_cost * cost
    for at in np.lexsort((names[j], names[i], -ratio)).tolist():
        reader, held = int(i[at]), int(j[at])
        grown = read[reader] + candidates[reader, held]
        before, after = (sizes[reader] + min(r, limit) for r in (read[reader], grown))
        if cost + after**2 - before**2 <= bound:
            cost += after**2 - before**2
            read[reader], arcs[reader, held] = grown, True
    return arcs


def retained(partition: Partition, config: PartitionConfig) -> list[dict[str, str]]:
    """What was chosen from the data at creation and stays when records go: name and why."""
    kept: list[dict[str, str]] = []
    if partition.guarantee != "frozen":
        return kept
    why = "partition.guarantee is frozen: the other nodes keep the shards they got at creation"
    kept.append({"name": "partition", "why": why})
    if partition.halo is not None and config.halo.budget is not None:
        why = "the budget over the number of candidates each shard had at creation"
        kept.append({"name": "halo thresholds", "why": why})
    if partition.halo is not None and config.halo.arcs == "ranked":
        why = "the shards that each shard may read were ranked by the edges at creation"
        kept.append({"name": "halo arcs", "why": why})
    return kept


def check_halo(partition: Partition, config: PartitionConfig) -> None:
    """Check that the halo of a given, frozen partition is one the configuration describes.

    Raises:
        ConfigError: names what differs.
    """
    halo, wanted, num_shards = partition.halo, config.halo, partition.num_shards
    if halo is None or not wanted.is_on:
        if halo is not None:
            raise ConfigError(
                "the given partition has a halo, partition.halo says none; set partition.halo to "
                "what it was made with, or give the partition without its halo"
            )
        return
    shapes = (halo.thresholds.shape, (num_shards,) * 2 if halo.arcs is None else halo.arcs.shape)
    found = {
        "hops": halo.hops == wanted.hops,
        "labels": halo.labels == wanted.labels,
        "seed": halo.seed == config.seed,
        "num_shards": shapes == ((num_shards,), (num_shards, num_shards)),
        "arcs": _same_arcs(halo.arcs, config),
        "budget": wanted.budget is not None or bool((halo.thresholds >= 1).all()),
    }
    wrong = [name for name, same in found.items() if not same]
    if wrong:
        raise ConfigError(
            f"the halo of the given partition has other {', '.join(wrong)} than partition.halo "
            "says; make them agree, or give the partition without its halo"
        )


def _same_arcs(arcs: Array | None, config: PartitionConfig) -> bool:
    if config.halo.arcs == "clique":
        return arcs is not None and np.array_equal(arcs, clique_arcs(default_coarse(config)))
    return (arcs is None) == (config.halo.arcs == "all")
