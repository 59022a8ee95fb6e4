"""Answers of a generation under a mask, and what holds for each call while shards retrain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from cluster.digest import NodeId
from cluster.errors import ConfigError, GraphError, NoLeaseError, StaleShardError, UnweaveError
from coordinator.requests.serving import (
    BLOCK,
    MASK,
    SERVING_POLICIES,
    Held,
    ServingPolicy,
    strictest,
)
from coordinator.serving.asked import typed_ids
from coordinator.serving.leases import Grant
from coordinator.serving.view import View

GONE: Final = {"code": "gone", "status": 410}
UNKNOWN: Final = {"code": "unknown", "status": 404}

Call = tuple[Sequence[NodeId], str | None, int | None]  # ids, policy, top_k


@dataclass(frozen=True, eq=False)
class Coming:
    """A generation under a mask.

    Attributes:
        generation: its number.
        view: its answers.
        version: of the mask.
        epoch: graph epoch up to which erasures are masked.
        stale: shard that has read what is masked -> the policy that holds for it.
        policy: what the service has.
    """

    generation: int
    view: View
    version: int = 0
    epoch: int = 0
    stale: Held = field(default_factory=dict)
    policy: ServingPolicy = MASK

    def under(self, grant: Grant) -> Coming:
        """The same under what a grant masks.

        Raises:
            NoLeaseError: the office serves this generation no more.
        """
        if grant.located is None:
            raise NoLeaseError(f"generation {self.generation} is no longer served")
        return replace(
            self,
            view=self.view.under(grant.located),
            version=grant.version,
            epoch=grant.epoch,
            stale=grant.stale,
            policy=grant.policy,
        )

    def asked(self, policy: str | None) -> Ruling:
        """What holds for a call: its own policy, else that of each stale shard.

        Raises:
            ConfigError: there is no such policy.
        """
        if policy is None:
            return Ruling(strictest(*self.stale.values() or (self.policy,)), self.stale)
        if policy not in SERVING_POLICIES:
            raise ConfigError(f"policy is {policy!r}; choose one of {list(SERVING_POLICIES)}")
        own: ServingPolicy = policy
        return Ruling(own, dict.fromkeys(self.stale, own))


@dataclass(frozen=True, eq=False)
class Ruling:
    """What holds for a call while shards retrain.

    Attributes:
        policy: the strictest that holds for any shard; the service's where none is stale.
        held: stale shard -> its policy.
    """

    policy: ServingPolicy
    held: Held

    @property
    def excluded(self) -> frozenset[int]:
        """Shards without a vote."""
        return frozenset(shard for shard, policy in self.held.items() if policy != MASK)

    @property
    def blocked(self) -> tuple[int, ...]:
        """Shards whose nodes get no answer."""
        return tuple(shard for shard, policy in self.held.items() if policy == BLOCK)


def answer(current: Coming, calls: Sequence[Call]) -> list[dict[str, Any] | UnweaveError]:
    """Answers of one view; calls of one policy share an evaluation."""
    found: dict[int, dict[str, Any] | UnweaveError] = {}
    groups: dict[str | None, list[int]] = {}
    for at, (_, policy, top_k) in enumerate(calls):
        groups.setdefault(policy, []).append(at)
        if top_k is not None and top_k < 1:
            found[at] = ConfigError(f"top_k is {top_k}; ask for 1 class or more")
    for policy, members in groups.items():
        rows = {at: _rows(current.view, calls[at][0]) for at in members}
        asked = np.concatenate([rows[at][rows[at] >= 0] for at in members])
        try:
            ruling = current.asked(policy)
            _require(current, ruling, asked)
            proba = _evaluate(current, ruling, asked)
        except UnweaveError as error:
            found |= _one_by_one(current, calls, members, error)
            continue
        first = 0
        for at in members:
            ids, _, top_k = calls[at]
            known = int((rows[at] >= 0).sum())
            part = proba[first : first + known]
            first += known
            found.setdefault(at, _shown(current, ruling, ids, rows[at], part, top_k))
    return [found[at] for at in range(len(calls))]


def _one_by_one(
    current: Coming, calls: Sequence[Call], members: Sequence[int], error: UnweaveError
) -> dict[int, dict[str, Any] | UnweaveError]:
    """Answers of calls that failed together, so that nobody suffers for another's nodes."""
    if len(members) == 1:
        return {members[0]: error}
    return {at: answer(current, [calls[at]])[0] for at in members}


def _require(current: Coming, ruling: Ruling, rows: Any) -> None:
    published = current.view.published
    if ruling.blocked and published.owned_by(ruling.blocked, rows).any():
        raise StaleShardError(
            "a shard that owns one of these nodes is being retrained; ask again later"
        )


def _evaluate(current: Coming, ruling: Ruling, rows: Any) -> Any:
    if not len(rows):
        return np.empty((0, current.view.graph.schema.num_classes))
    return current.view.answer(rows, ruling.excluded)


def _rows(view: View, ids: Sequence[NodeId]) -> Any:
    """``[n]`` row of each id; -1 where it is masked, -2 where the graph does not hold it."""
    graph, found = view.published.graph, np.full(len(ids), -2, np.int64)
    typed, here = typed_ids(ids, graph.schema), []
    for at, node_id in enumerate(typed):
        try:
            if graph.has_node(node_id):
                here.append(at)
        except (GraphError, TypeError):  # an id of another type is in no graph of this one
            continue
    if here:
        rows = graph.rows([typed[at] for at in here])
        found[here] = np.where(view.hidden.removed[rows], -1, rows)
    return found


def _shown(
    current: Coming,
    ruling: Ruling,
    ids: Sequence[NodeId],
    rows: Any,
    proba: Any,
    top_k: int | None,
) -> dict[str, Any]:
    """The body of one answer."""
    names = [str(name) for name in current.view.published.graph.classes]
    classes, answers, results = current.view.published.graph.classes, iter(proba), []
    for node_id, row in zip(ids, rows.tolist(), strict=True):
        if row < 0:
            results.append({"id": node_id, "error": dict(GONE if row == -1 else UNKNOWN)})
            continue
        one = next(answers)
        order = np.argsort(-one, kind="stable")[:top_k]
        shown = np.sort(order) if top_k is None else order
        results.append(
            {
                "id": node_id,
                "label": classes[int(one.argmax())],
                "proba": {names[i]: float(one[i]) for i in shown.tolist()},
            }
        )
    return {
        "generation": current.generation,
        "epoch": current.epoch,
        "policy": ruling.policy,
        "stale_shards": list(ruling.held),
        "shard_policies": {str(shard): policy for shard, policy in ruling.held.items()},
        "results": results,
    }
