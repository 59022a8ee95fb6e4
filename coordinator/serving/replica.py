"""A replica: answers with one generation under one mask, while it holds a lease.

It reads the home without the ledger, so it cannot write. One thread renews the lease
(:meth:`Replica.ask`, the office, :meth:`Replica.renew`), another loads what is published later
(:meth:`Replica.load`), a third answers (:meth:`Replica.predict`). A mask is put on beside the view
that answers; the two change places when no answer is under way, and only then is it confirmed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId
from cluster.errors import ConfigError, NoLeaseError, StaleShardError
from cluster.store import LocalStore
from coordinator.config import Config
from coordinator.serving.leases import Grant
from coordinator.serving.published import load_published
from coordinator.serving.view import View

Array = npt.NDArray[Any]

POLICIES = ("mask", "exclude", "block")
UNMASKED = -1  # epoch of a generation that is loaded and has no mask yet: nothing answers with it
GONE = {"code": "gone", "status": 410}
UNKNOWN = {"code": "unknown", "status": 404}


@dataclass(frozen=True)
class Serving:
    """What answers, replaced as a whole.

    Attributes:
        view: generation and mask.
        epoch: mask epoch.
        stale_shards: as the office says.
    """

    view: View
    epoch: int
    stale_shards: tuple[int, ...]


class Replica:
    """Answers for one home; an ordinary class."""

    def __init__(self, home: str | Path, config: Config) -> None:
        self.store, self.config = LocalStore(home), config
        self._serving: Serving | None = None
        self._offer: tuple[int, Mapping[str, Any]] | None = None
        self._newest = 0  # generation that was offered last
        self._loaded: View | None = None  # waits for its mask
        self._asked_with: View | None = None
        self._lease_ends = 0.0  # of time.monotonic
        self._answering = threading.Lock()

    # ---- the lease

    @property
    def confirm(self) -> tuple[int, int]:
        """(generation, epoch) in force, with no answer under an older one left; zeros at first."""
        serving = self._serving
        return (0, 0) if serving is None else (serving.view.published.number, serving.epoch)

    def ask(self) -> tuple[int, int]:
        """(generation, epoch) to ask the office with.

        They are those in force, or (a loaded generation, ``UNMASKED``), which confirms nothing: the
        office answers with the mask for it.
        """
        serving, loaded = self._serving, self._loaded
        self._asked_with = loaded or (serving.view if serving is not None else None)
        return self.confirm if loaded is None else (loaded.published.number, UNMASKED)

    def renew(self, grant: Grant, asked_at: float) -> None:
        """Take the office's answer to the latest :meth:`ask`; returns when its mask is in force.

        Args:
            grant: the answer.
            asked_at: ``time.monotonic()`` before asking.

        Raises:
            ValueError: a generation without a mask got none.
        """
        self._lease_ends = asked_at + grant.ttl_s  # the office waits until its mask is confirmed
        try:
            self._take(grant)
        except BaseException:
            self._lease_ends = 0.0
            raise

    def _take(self, grant: Grant) -> None:
        if grant.body is not None and grant.generation > self._newest:
            self._newest, self._offer = grant.generation, (grant.generation, grant.body)
        asked, serving = self._asked_with, self._serving
        if asked is None or grant.ttl_s <= 0:
            return
        if grant.located is not None:
            asked = asked.under(grant.located)
        elif serving is None or serving.view is not asked:
            raise ValueError("a grant for a generation that is not masked yet must bring its mask")
        with self._answering:
            self._serving = Serving(asked, grant.epoch, tuple(grant.stale_shards))
        if self._loaded is not None and self._loaded.published is asked.published:
            self._loaded = None

    def load(self) -> bool:
        """Load what the office offered, beside what answers; whether there was something to load.

        Raises:
            CorruptArtefactError: a file of it is missing, as when there is a newer one; it may be
                offered again.
        """
        offer = self._offer
        if offer is None:
            return False
        try:
            self._loaded = View.cold(load_published(self.store, *offer, self.config))
        except BaseException:
            self._newest = 0
            raise
        finally:
            if self._offer is offer:
                self._offer = None
        return True

    def require_lease(self) -> Serving:
        """What answers now.

        Raises:
            NoLeaseError: nothing is loaded, or the lease has run out.
        """
        serving = self._serving
        if serving is None or time.monotonic() >= self._lease_ends:
            raise NoLeaseError(
                "this replica holds no lease on the mask, so it may not answer; try again, and if "
                "it lasts, see whether the office is running"
            )
        return serving

    # ---- answering

    def warm(self, count: int) -> int:
        """Compute up to ``count`` answers ahead; how many are left, 0 without a lease."""
        with self._answering:
            serving = self._serving
            if serving is None or time.monotonic() >= self._lease_ends:
                return 0
            return serving.view.warm(count)

    def predict(
        self, ids: Sequence[NodeId], policy: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """Answers for some nodes, all by one generation under one mask.

        Args:
            ids: external ids; a masked one gets the error ``gone``, one that the generation does
                not hold ``unknown`` (the office knows whether it was forgotten earlier).
            policy: ``mask``; ``exclude`` drops the votes of stale shards; ``block`` refuses nodes
                that a stale shard owns. ``mask`` by default.
            top_k: most probable classes to list, as ``[{"label", "p"}]``; else ``{label: p}`` of
                all.

        Returns:
            ``generation, epoch, policy, stale_shards, results``; results in order of the ids, with
            ``id`` and ``label, proba`` or ``error``.

        Raises:
            ConfigError: there is no such policy, or ``top_k`` is below 1.
            NoLeaseError: there is no lease before it reads or before it answers.
            StaleShardError: see the policies.
        """
        policy = policy or "mask"
        if policy not in POLICIES:
            raise ConfigError(f"policy is {policy!r}; choose one of {list(POLICIES)}")
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k is {top_k}; ask for 1 class or more")
        with self._answering:
            serving = self.require_lease()
            results = _results(serving, list(ids), policy, top_k)
            self.require_lease()
        return {
            "generation": serving.view.published.number,
            "epoch": serving.epoch,
            "policy": policy,
            "stale_shards": list(serving.stale_shards),
            "results": results,
        }


def _results(
    serving: Serving, ids: list[NodeId], policy: str, top_k: int | None
) -> list[dict[str, Any]]:
    view, stale = serving.view, serving.stale_shards
    graph, removed = view.published.graph, view.hidden.removed
    known = [place for place, node_id in enumerate(ids) if graph.has_node(node_id)]
    rows = graph.rows([ids[place] for place in known])
    gone = removed[rows]
    errors = {place: GONE for place, hidden in zip(known, gone.tolist(), strict=True) if hidden}
    shown = [place for place in known if place not in errors]
    rows = rows[~gone]
    waiting = int(view.published.owned_by(stale, rows).sum())
    if policy == "block" and waiting:
        raise StaleShardError(
            f"{waiting} of the nodes belong to a shard that is being retrained; ask again later, "
            "or with the policy 'mask' or 'exclude'"
        )
    answers: dict[int, Array] = {}
    if shown:
        excluded = stale if policy == "exclude" else ()
        answers = dict(zip(shown, view.answer(rows, excluded), strict=True))
    return [
        {"id": node_id, **_said(answers[place], graph.classes, top_k)}
        if place in answers
        else {"id": node_id, "error": dict(errors.get(place, UNKNOWN))}
        for place, node_id in enumerate(ids)
    ]


def _said(proba: Array, classes: tuple[int | str, ...], top_k: int | None) -> dict[str, Any]:
    """Label and probabilities of one node; of equal ones the first class leads."""
    label = classes[int(proba.argmax())]
    if top_k is None:
        return {"label": label, "proba": dict(zip(classes, proba.tolist(), strict=True))}
    leading = np.argsort(-proba, kind="stable")[:top_k].tolist()
    return {"label": label, "proba": [{"label": classes[c], "p": float(proba[c])} for c in leading]}
