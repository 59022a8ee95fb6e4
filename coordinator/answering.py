"""Posteriors of all submodels, computed on the pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import GraphError
from coordinator.pools import Pool
from coordinator.pools.base import Progress
from shards.jobs import EvaluateJob

Array = npt.NDArray[Any]


def evaluate_all(pool: Pool, job: EvaluateJob, progress: Progress) -> Array:
    """``[s, N, C]`` posteriors of the job's submodels on the full current graph.

    The submodels are shared out over the actors; each computes its own, so the bits do not depend
    on how.

    Raises:
        GraphError: there is no submodel, since every shard is silent.
    """
    keys = job.submodel_keys
    if not keys:
        raise GraphError(
            "every shard is silent: no training label is left, so there is nothing to predict "
            "with; fit a new system on a graph with labels"
        )
    size = max(1, pool.size)
    parts = [keys[i::size] for i in range(size) if keys[i::size]]
    answers = pool.map("evaluate", [replace(job, submodel_keys=part) for part in parts], progress)
    merged: list[Any] = [None] * len(keys)
    for i, answer in enumerate(answers):
        merged[i::size] = list(answer)
    return np.stack(merged)
