"""What an office grants a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.graph import Located
from coordinator.requests.serving import MASK, Held, ServingPolicy


@dataclass(frozen=True, eq=False)
class Grant:
    """Under what a replica may answer, from when it asked for ``ttl_s`` seconds.

    Attributes:
        generation: number of the published generation.
        body: that generation as JSON, with ``aggregator``; None where the replica answers with it.
        version: of generation and mask; grows with every change.
        epoch: graph epoch, for the record.
        located: what is masked, by its place in the replica's own generation; None where that one
            is no longer served.
        stale: shard whose submodel has read what is masked -> the policy that holds for it,
            ascending.
        ttl_s: seconds; 0 where there is no lease.
        policy: what the service has, for answers while no shard is stale.
    """

    generation: int
    body: Mapping[str, Any] | None
    version: int
    epoch: int
    located: Located | None
    stale: Held
    ttl_s: float
    policy: ServingPolicy = MASK
