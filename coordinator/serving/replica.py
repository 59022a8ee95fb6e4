"""Replica: answers predictions with one generation, under the mask that the office grants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from cluster.digest import NodeId
from cluster.errors import ConfigError, GraphError, NoLeaseError, StaleShardError, UnweaveError
from cluster.files import CONFIG_FILE
from cluster.store import LocalStore
from coordinator.config import load_config
from coordinator.serving.asked import typed_ids
from coordinator.serving.leases import Grant
from coordinator.serving.published import load_published
from coordinator.serving.view import View

Policy = Literal["mask", "exclude", "block"]
POLICIES: Final = get_args(Policy)
GONE: Final = {"code": "gone", "status": 410}
UNKNOWN: Final = {"code": "unknown", "status": 404}

SETTLED_S = 3.0  # without a new mask, before answers are computed ahead

Call = tuple[Sequence[NodeId], str | None, int | None]  # ids, policy, top_k


@dataclass(frozen=True, eq=False)
class Coming:
    """A generation under a mask.

    Attributes:
        generation: its number.
        view: its answers.
        version: of the mask.
        epoch: graph epoch up to which erasures are masked.
        stale_shards: shards that have read what is masked.
    """

    generation: int
    view: View
    version: int = 0
    epoch: int = 0
    stale_shards: tuple[int, ...] = ()

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
            stale_shards=grant.stale_shards,
        )


class Replica:
    """Answers from memory; :class:`~coordinator.serving.replica_loop.ReplicaLoop` feeds it.

    Args:
        home: folder of the system; only read.
        now: a monotonic clock, seconds.
    """

    def __init__(self, home: str | Path, now: Callable[[], float] = time.monotonic) -> None:
        self._home, self._now = Path(home), now
        self._answering = threading.Lock()  # held while a view is read, and to replace it
        self._current: Coming | None = None
        self._until = self._taken_at = -1.0

    @property
    def generation(self) -> int | None:
        """Number of the generation it answers with."""
        return None if self._current is None else self._current.generation

    @property
    def version(self) -> int:
        """Version of the mask in force, with no older answer on its way."""
        return 0 if self._current is None else self._current.version

    # ---- what it answers with

    def read(self, generation: int, body: Mapping[str, Any]) -> Coming:
        """Read a generation from the home; what it answers with now is not touched.

        Raises:
            CorruptArtefactError: a file is gone, since a later generation was published.
        """
        config = load_config(self._home / CONFIG_FILE)
        published = load_published(LocalStore(self._home), generation, body, config)
        return Coming(generation, View.cold(published))

    def take(self, coming: Coming) -> None:
        """Answer with a generation from now on; waits for the answers on their way."""
        with self._answering:
            self._current, self._taken_at = coming, self._now()
            coming.view.forget_hidden()

    def renew(self, grant: Grant, asked_at: float) -> None:
        """Put the granted mask on, and answer under it for as long as is granted.

        Args:
            grant: of the generation it answers with.
            asked_at: when it was asked for, by the replica's own clock.
        """
        current = self._current
        if current is None or not grant.ttl_s:
            return
        if grant.version != current.version:
            self.take(current.under(grant))
        self._until = max(self._until, asked_at + grant.ttl_s)

    def require_lease(self) -> Coming:
        """What it may answer with now.

        Raises:
            NoLeaseError: it holds no lease.
        """
        current = self._current
        if current is None or self._now() >= self._until:
            raise NoLeaseError("this replica holds no lease on the mask; try again in a moment")
        return current

    # ---- answering

    def warm(self, count: int) -> int:
        """Compute up to ``count`` answers ahead; how many are left.

        Nothing is computed without a lease, nor while masks follow each other: what is computed
        ahead would be void with the next.
        """
        with self._answering:
            current, now = self._current, self._now()
            if current is None or now >= self._until or now - self._taken_at < SETTLED_S:
                return 0
            return current.view.warm(count)

    def predict(
        self, ids: Sequence[NodeId], policy: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """Predict nodes.

        Returns:
            ``generation``, ``epoch``, ``policy``, ``stale_shards``, and ``results`` in order:
            ``id`` with ``label`` and ``proba`` (class -> probability, the ``top_k`` largest if
            given), or with ``error``: ``gone`` for what is masked, ``unknown`` for what the graph
            lacks.

        Raises:
            NoLeaseError: it may not answer now.
            StaleShardError: the policy is ``block``, and one of the nodes is a stale shard's.
            ConfigError: there is no such policy, or ``top_k`` is below 1.
        """
        (found,) = self.predict_many([(ids, policy, top_k)])
        if isinstance(found, UnweaveError):
            raise found
        return found

    def predict_many(self, calls: Sequence[Call]) -> list[dict[str, Any] | UnweaveError]:
        """:meth:`predict` for several callers at once; an error is one caller's alone."""
        try:
            with self._answering:
                current = self.require_lease()
                answered = _answer(current, calls)
                self.require_lease()
        except NoLeaseError as error:
            return [error] * len(calls)
        return answered


def _answer(current: Coming, calls: Sequence[Call]) -> list[dict[str, Any] | UnweaveError]:
    """Answers of one view; calls of one policy share an evaluation."""
    found: dict[int, dict[str, Any] | UnweaveError] = {}
    groups: dict[str, list[int]] = {}
    for at, (_, policy, top_k) in enumerate(calls):
        groups.setdefault(policy or "mask", []).append(at)
        if top_k is not None and top_k < 1:
            found[at] = ConfigError(f"top_k is {top_k}; ask for 1 class or more")
    for policy, members in groups.items():
        rows = {at: _rows(current.view, calls[at][0]) for at in members}
        asked = np.concatenate([rows[at][rows[at] >= 0] for at in members])
        try:
            _require(current, policy, asked)
            proba = _evaluate(current, policy, asked)
        except UnweaveError as error:
            found |= _one_by_one(current, calls, members, error)
            continue
        first = 0
        for at in members:
            ids, _, top_k = calls[at]
            known = int((rows[at] >= 0).sum())
            part = proba[first : first + known]
            first += known
            found.setdefault(at, _shown(current, policy, ids, rows[at], part, top_k))
    return [found[at] for at in range(len(calls))]


def _one_by_one(
    current: Coming, calls: Sequence[Call], members: Sequence[int], error: UnweaveError
) -> dict[int, dict[str, Any] | UnweaveError]:
    """Answers of calls that failed together, so that nobody suffers for another's nodes."""
    if len(members) == 1:
        return {members[0]: error}
    return {at: _answer(current, [calls[at]])[0] for at in members}


def _require(current: Coming, policy: str, rows: Any) -> None:
    if policy not in POLICIES:
        raise ConfigError(f"policy is {policy!r}; choose one of {list(POLICIES)}")
    published = current.view.published
    if policy == "block" and published.owned_by(current.stale_shards, rows).any():
        raise StaleShardError(
            "a shard that owns one of these nodes is being retrained; ask again later"
        )


def _evaluate(current: Coming, policy: str, rows: Any) -> Any:
    excluded = frozenset(current.stale_shards if policy == "exclude" else ())
    if not len(rows):
        return np.empty((0, current.view.graph.schema.num_classes))
    return current.view.answer(rows, excluded)


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
    policy: str,
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
        "policy": policy,
        "stale_shards": list(current.stale_shards),
        "results": results,
    }
