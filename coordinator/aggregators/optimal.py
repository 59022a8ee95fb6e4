"""LBAggr mended: one weight a shard, fitted to the likelihood of training rows.

GraphEraser (Chen et al., CCS 2022, eq. 8) minimises a cross entropy over a weighted sum of
log-posteriors, which is a double softmax, on a fresh random sample each time. Here the weights
are those of the mixture ``sum_s w_s p_s(y | v)`` on the simplex, fitted by expectation
maximisation on training rows chosen by a keyed hash, through posterior blocks: a change redoes
only the blocks whose rows it reaches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.digest import Digest, derive_seed, digest
from cluster.errors import CorruptArtefactError
from cluster.graph import TRAIN, UNLABELLED, Graph
from cluster.partition import Partition
from cluster.store import Blob
from coordinator.aggregators.base import (
    AGGREGATOR,
    PACK,
    Aggregator,
    AggregatorState,
    Array,
    FitContext,
    View,
    weighted_alike,
)
from coordinator.config import Config
from shards.blocks import ball, block_key
from shards.jobs import BlocksJob
from shards.submodels.table import receptive_field

logger = logging.getLogger(__name__)

BUCKET_ROWS = 16  # expected; a bucket's rows share a shard, so that their balls overlap
ITERATIONS = 200


@dataclass(frozen=True)
class FitRows:
    """Fit rows by bucket.

    Attributes:
        buckets: name -> ascending rows of the graph.
    """

    buckets: Mapping[str, Array]

    @property
    def rows(self) -> Array:
        """``[R]`` all fit rows, bucket after bucket."""
        return np.concatenate([*self.buckets.values(), np.empty(0, np.int64)]).astype(np.int64)


def choose_fit_rows(graph: Graph, partition: Partition, config: Config) -> FitRows:
    """Labelled training rows under a keyed-hash threshold that was fixed at creation.

    A bucket holds the rows of one owner and one hash class, so a row's bucket never depends on
    another row, and the number of classes is fixed by the configuration.
    """
    nominal = graph.schema.nominal_nodes * config.roles.train
    share = min(1.0, config.aggregator.fit_rows / max(nominal, 1))
    seed = derive_seed(config.seed, "fit-rows")
    chosen = graph.hash("fit-row", seed) / 2.0**64 < share
    rows = np.flatnonzero(chosen & (graph.roles(config.roles) == TRAIN) & (graph.y != UNLABELLED))
    classes = math.ceil(config.aggregator.fit_rows / (BUCKET_ROWS * partition.num_shards))
    hashed = (graph.hash("bucket", seed)[rows] % np.uint64(classes)).astype(np.int64)
    bucket = partition.owners(graph)[rows] * classes + hashed
    return FitRows({str(number): rows[bucket == number] for number in np.unique(bucket).tolist()})


class Optimal(Aggregator):
    """Mixture weights fitted through posterior blocks."""

    kind = "optimal"
    needs_fit = True

    def fit(self, context: FitContext) -> AggregatorState:
        """Recompute the moved blocks, keep the others, refit the weights."""
        fit_rows = choose_fit_rows(context.graph, context.partition, context.config)
        balls = ball_digests(context, fit_rows)
        packs, blobs, blocks = compute_blocks(context, fit_rows, balls)
        y = context.graph.y[fit_rows.rows]
        key = optimal_key(context, balls, y)
        weights = _fit_weights(context, blocks, y)
        members = member_digests(context.graph, fit_rows)
        meta = {"balls": dict(balls), "members": members, "packs": packs}
        context.write({**blobs, (AGGREGATOR, str(key)): Blob({"weights": weights}, meta)})
        artefacts = ((AGGREGATOR, str(key)), *((PACK, pack) for pack in packs.values()))
        return AggregatorState(key, {"weights": weights}, meta, artefacts)

    def combine(
        self, posteriors: Array, view: View, state: AggregatorState, config: Config
    ) -> Array:
        """The same weights for every node."""
        return weighted_alike(posteriors, state.tensors["weights"])


def _fit_weights(context: FitContext, blocks: Mapping[str, Array], y: Array) -> Array:
    """``[s]`` mixture weights, fitted under the workers' numerics."""
    if not context.submodels:
        return np.empty(0)
    shards = sorted(context.submodels)
    posteriors = np.stack([blocks[context.submodels[shard]] for shard in shards])
    job = ("coordinator.aggregators.optimal:fit_mixture", (posteriors, y))
    weights: Array = context.pool.map("call", [job])[0]
    return weights


def member_digests(graph: Graph, fit_rows: FitRows) -> dict[str, Digest]:
    """Digest of the ids in every bucket: a fit row that goes disturbs none of those that stay."""
    return {
        name: digest("fit-rows", graph.schema.id_type, graph.ids[rows])
        for name, rows in fit_rows.buckets.items()
    }


def ball_digests(context: FitContext, fit_rows: FitRows) -> dict[str, Digest]:
    """Digest of every bucket's ball; carried over where the change did not reach."""
    hops = receptive_field(context.recipe.config)
    moved = context.moved(hops) if context.moved else None
    known: Mapping[str, str] = {}
    if context.previous is not None and moved is not None:
        balls, then = context.previous.meta["balls"], context.previous.meta["members"]
        now = member_digests(context.graph, fit_rows)
        known = {name: balls[name] for name in now if now[name] == then.get(name)}
    digests = {}
    for name, rows in fit_rows.buckets.items():
        if moved is not None and name in known and not moved[rows].any():
            digests[name] = Digest(known[name])
        else:
            digests[name] = ball(context.graph, rows, hops).digest
    return digests


def optimal_key(context: FitContext, balls: Mapping[str, Digest], y: Array) -> Digest:
    """Key of the fitted weights: blocks by shard, labels, partition, settings, recipe, seed."""
    blocks = [
        [block_key(context.submodels[shard], balls[name]) for name in balls]
        for shard in sorted(context.submodels)
    ]
    settings = context.config.aggregator.model_dump()
    roles = context.config.roles.model_dump()
    identity = (settings, roles, context.partition.key, context.recipe.key, context.config.seed)
    return digest("aggregator", identity, blocks, y)


def compute_blocks(
    context: FitContext, fit_rows: FitRows, balls: Mapping[str, Digest]
) -> tuple[dict[str, str], dict[tuple[str, str], Blob], dict[str, Array]]:
    """Posteriors of every submodel on the fit rows, moved blocks only.

    Returns:
        submodel key -> pack key, the packs to write, and submodel key -> ``[R, C]`` float32
        posteriors.
    """
    names = list(fit_rows.buckets)
    held = _stored_blocks(context)
    keys = [context.submodels[shard] for shard in sorted(context.submodels)]
    wanted = [
        tuple(at for at, name in enumerate(names) if block_key(key, balls[name]) not in held)
        for key in keys
    ]
    computed = _run(context, keys, wanted, [fit_rows.buckets[name] for name in names])
    packs, blobs, blocks = {}, {}, {}
    for key, fresh in zip(keys, computed, strict=True):
        parts = {
            str(block_key(key, balls[name])): fresh[at]
            if at in fresh
            else held[block_key(key, balls[name])]
            for at, name in enumerate(names)
        }
        pack = str(digest("posterior-pack", list(parts)))
        packs[key] = pack
        if fresh or not context.store.has(PACK, pack):
            blobs[PACK, pack] = Blob(parts)
        blocks[key] = np.concatenate([*parts.values(), _no_rows(context)])
    return packs, blobs, blocks


def _no_rows(context: FitContext) -> Array:
    return np.empty((0, context.graph.schema.num_classes), np.float32)


def _stored_blocks(context: FitContext) -> dict[str, Array]:
    """Block key -> posteriors, from the packs of the aggregator before."""
    if context.previous is None:
        return {}
    held: dict[str, Array] = {}
    for key, pack in context.previous.meta["packs"].items():
        if key in set(context.submodels.values()):
            try:
                held |= context.store.get(PACK, pack).tensors
            except CorruptArtefactError as error:  # its blocks are computed again
                logger.warning("%s", error, extra={"event": "artefact_corrupt", "key": pack})
    return held


def _run(
    context: FitContext,
    keys: Sequence[str],
    wanted: Sequence[tuple[int, ...]],
    buckets: Sequence[Array],
) -> list[dict[int, Array]]:
    """Share the submodels out over the pool; one job an actor, so a ball is cut once in each."""
    size = max(1, context.pool.size)
    jobs, places = [], []
    for first in range(size):
        mine = [i for i in range(first, len(keys), size) if wanted[i]]
        if mine:
            places.append(mine)
            jobs.append(
                BlocksJob(
                    context.home,
                    context.graph_key,
                    tuple(keys[i] for i in mine),
                    context.recipe,
                    receptive_field(context.recipe.config),
                    tuple(buckets),
                    tuple(wanted[i] for i in mine),
                )
            )
    results: list[dict[int, Array]] = [{} for _ in keys]
    for mine, answers in zip(places, context.pool.map("blocks", jobs), strict=True):
        for i, answer in zip(mine, answers, strict=True):
            results[i] = answer
    return results


def fit_mixture(posteriors: Array, y: Array) -> Array:
    """Simplex weights of the mixture with the highest likelihood, by expectation maximisation.

    Args:
        posteriors: ``[s, R, C]`` float32.
        y: ``[R]`` class indices.

    Returns:
        ``[s]`` float64; uniform when there is no fit row.
    """
    num_shards, num_rows, _ = posteriors.shape
    weights = np.full(num_shards, 1 / num_shards)
    likelihood = posteriors[:, np.arange(num_rows), y].astype(np.float64)
    seen = (likelihood > 0).any(axis=0)  # a row that no shard thinks possible says nothing
    if not seen.any():
        return weights
    likelihood = likelihood[:, seen]
    for _ in range(ITERATIONS):
        joint = weights[:, None] * likelihood
        evidence = np.add.accumulate(joint, axis=0)[-1]
        share = joint / evidence
        weights = np.add.accumulate(share, axis=1)[:, -1]
        weights = weights / np.add.accumulate(weights)[-1]
    return weights
