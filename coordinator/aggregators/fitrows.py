"""Fit rows: which nodes an aggregator is fitted on, and the submodels' answers on them.

A row's answer is a function of its submodel and of the rows within its receptive field, and its
bits do not depend on which rows are asked with it. So the answers are kept row by row, and a change
computes those it moved and those of new submodels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cluster.config import RolesConfig
from cluster.digest import derive_seed, digest
from cluster.errors import CorruptArtefactError
from cluster.graph import TRAIN, UNLABELLED, Graph
from cluster.store import Blob, note_damage
from coordinator.aggregators.base import PACK, Array, FitContext
from coordinator.config import Config
from shards.jobs import RowsJob
from shards.submodels.table import receptive_field


@dataclass(frozen=True)
class FitAnswers:
    """Answers of the submodels on the fit rows.

    Attributes:
        rows: ``[R]`` ascending rows of the graph.
        posteriors: ``[s, R, C]`` float32, in order of the shard numbers.
        pack: key of the artefact that holds them.
    """

    rows: Array
    posteriors: Array
    pack: str


def choose_rows(graph: Graph, config: Config, role: int) -> Array:
    """Labelled rows of a role under a keyed-hash threshold that was fixed at creation."""
    nominal = graph.schema.nominal_nodes * _share_of(role, config.roles)
    share = min(1.0, config.aggregator.fit_rows / max(nominal, 1))
    chosen = graph.hash("fit-row", derive_seed(config.seed, "fit-rows")) / 2.0**64 < share
    labelled = (graph.roles(config.roles) == role) & (graph.y != UNLABELLED)
    return np.flatnonzero(chosen & labelled)


def _share_of(role: int, roles: RolesConfig) -> float:
    return roles.train if role == TRAIN else roles.val


def fit_answers(context: FitContext, role: int) -> tuple[FitAnswers, dict[tuple[str, str], Blob]]:
    """Answers on the fit rows of a role, and the artefact to write, if it is new."""
    rows = choose_rows(context.graph, context.config, role)
    keys = [context.submodels[shard] for shard in sorted(context.submodels)]
    settings = (context.config.roles.model_dump(), context.config.aggregator.fit_rows)
    identity = (role, settings, context.config.seed, context.recipe.key)
    pack = str(digest("posterior-rows", identity, context.graph_key, keys))
    held, moved = _held_answers(context, role, rows)
    wanted = tuple(rows[moved] if key in held else rows for key in keys)
    answers = dict(zip(keys, _compute(context, keys, wanted), strict=True))
    for key in held.keys() & answers.keys():
        held[key][moved] = answers[key]
        answers[key] = held[key]
    empty = np.empty((0, len(rows), context.graph.schema.num_classes), np.float32)
    stacked = np.stack(list(answers.values())) if answers else empty
    blobs = {} if context.store.has(PACK, pack) else {(PACK, pack): Blob(answers)}
    return FitAnswers(rows, stacked, pack), blobs


def _held_answers(context: FitContext, role: int, rows: Array) -> tuple[dict[str, Array], Array]:
    """Answers kept from the aggregator before, and which of them moved.

    Returns:
        submodel key -> ``[R, C]`` aligned with ``rows``, and ``[R]`` bool.
    """
    change, previous = context.disturbance, context.previous
    if change is None or previous is None or "pack" not in previous.meta:
        return {}, np.ones(len(rows), bool)
    stored = _load_pack(context, previous.meta["pack"])
    before = choose_rows(change.before, context.config, role)
    if not len(before):
        return {}, np.ones(len(rows), bool)
    at = np.minimum(np.searchsorted(before, change.kept[rows]), len(before) - 1)
    moved = change.moved(receptive_field(context.recipe.config))[rows]
    moved |= before[at] != change.kept[rows]
    wanted = set(context.submodels.values())
    return {key: table[at] for key, table in stored.items() if key in wanted}, moved


def _load_pack(context: FitContext, pack: str) -> Mapping[str, Array]:
    try:
        return context.store.get(PACK, pack).tensors
    except CorruptArtefactError as error:  # its answers are computed again
        note_damage(error)
        return {}


def _compute(context: FitContext, keys: list[str], wanted: tuple[Array, ...]) -> list[Array]:
    """Share the submodels out over the pool; one job an actor, so a ball is cut once in each."""
    size, change = max(1, context.pool.size), context.disturbance
    hops = receptive_field(context.recipe.config)
    move = change.as_move(hops) if change is not None else None
    num_classes = context.graph.schema.num_classes
    results = [np.empty((0, num_classes), np.float32) for _ in keys]
    places, jobs = [], []
    for first in range(size):
        mine = [i for i in range(first, len(keys), size) if len(wanted[i])]
        if mine:
            places.append(mine)
            jobs.append(
                RowsJob(
                    context.home,
                    context.graph_key,
                    tuple(keys[i] for i in mine),
                    context.recipe,
                    hops,
                    tuple(wanted[i] for i in mine),
                    move,
                )
            )
    for mine, answers in zip(places, context.pool.map("rows", jobs), strict=True):
        for i, answer in zip(mine, answers, strict=True):
            results[i] = answer
    return results
