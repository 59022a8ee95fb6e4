"""Shard by keyed hash of the id alone: the only assignment that no other record influences."""

from __future__ import annotations

import numpy as np

from cluster.partitioners.base import Array, Problem


def hash_partition(problem: Problem) -> Array:
    """Assign each node to ``hash(id) mod k``; ignores capacity, since balance would leak others."""
    shards: Array = (problem.hashes % np.uint64(problem.num_shards)).astype(np.int32)
    return shards
