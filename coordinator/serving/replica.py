"""Replica: answers predictions with one generation, under the mask that the office grants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.digest import NodeId
from cluster.errors import NoLeaseError, UnweaveError
from cluster.files import CONFIG_FILE
from cluster.store import LocalStore
from coordinator.config import load_config
from coordinator.serving.answers import Call, Coming, answer
from coordinator.serving.leases import Grant
from coordinator.serving.published import load_published
from coordinator.serving.view import View

SETTLED_S = 3.0  # without a new mask, before answers are computed ahead


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
            ``generation``, ``epoch``, ``policy``, ``stale_shards``, ``shard_policies`` (stale shard
            -> what held for it), and ``results`` in order: ``id`` with ``label`` and ``proba``
            (class -> probability, the ``top_k`` largest if given), or with ``error``: ``gone`` for
            what is masked, ``unknown`` for what the graph lacks.

        Raises:
            NoLeaseError: it may not answer now.
            StaleShardError: one of the nodes is a shard's whose policy is ``block``, or no shard is
                left to vote.
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
                answered = answer(current, calls)
                self.require_lease()
        except NoLeaseError as error:
            return [error] * len(calls)
        return answered
