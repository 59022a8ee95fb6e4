"""Leases on the mask: what the office grants a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.graph import Located


@dataclass(frozen=True)
class Grant:
    """The office's answer to a replica that says what it holds: (generation, epoch).

    Attributes:
        generation: number of the published generation.
        body: that generation in its JSON form, the aggregator's meta under ``aggregator``; None
            where the replica asked with it.
        epoch: mask epoch in force.
        located: all that is masked, by place in the graph of the generation that the replica asked
            with; None where it is what it was at the epoch that was asked with.
        stale_shards: shards that hold something masked, or are being retrained.
        ttl_s: seconds for which the replica may answer, from the moment before it asked; 0 for a
            grant that gives no lease.
    """

    generation: int
    body: Mapping[str, Any] | None
    epoch: int
    located: Located | None
    stale_shards: tuple[int, ...]
    ttl_s: float
