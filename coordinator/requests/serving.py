"""Serving policies: what is answered while the shards that read a request's records retrain.

Each policy asks for all that the one before it asks for. Whatever the policy, no answer reads the
records themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

from cluster.errors import RequestError
from coordinator.requests.regulations import REGULATOR

ServingPolicy = Literal["mask", "exclude", "block"]
MASK: Final = "mask"  # submodels that saw the records go on voting
EXCLUDE: Final = "exclude"  # their votes are dropped, for every answer
BLOCK: Final = "block"  # and nodes that their shards own get no answer
SERVING_POLICIES: Final[tuple[ServingPolicy, ...]] = get_args(ServingPolicy)  # strictest last
Held = Mapping[int, ServingPolicy]  # stale shard -> the policy that holds for it


def chosen_policy(asked: str | None, priority: str) -> ServingPolicy | None:
    """The policy of a request; None: that of the service.

    A regulator's request that says nothing excludes, the cautious reading of a restriction of
    processing (GDPR Art. 18).

    Raises:
        RequestError: there is no such policy.
    """
    if asked is None:
        return EXCLUDE if priority == REGULATOR else None
    for policy in SERVING_POLICIES:
        if policy == asked:
            return policy
    raise RequestError(f"serving_policy is {asked!r}; choose one of {list(SERVING_POLICIES)}")


def strictest(*policies: ServingPolicy) -> ServingPolicy:
    """The one that includes all the others."""
    return max(policies, key=SERVING_POLICIES.index)


def joined(*held: Held) -> dict[int, ServingPolicy]:
    """The strictest policy of each shard, the shards ascending."""
    found: dict[int, ServingPolicy] = {}
    for one in held:
        for shard, policy in one.items():
            found[shard] = strictest(policy, found.get(shard, MASK))
    return dict(sorted(found.items()))
