"""The office's side of mask leases: who may answer, under which mask, until when.

Every change of what answers may read has a version. A replica may answer under version v until the
last grant that named v has run out; so a change is in force once every replica has confirmed it, or
can no longer answer under anything older.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.engine import Engine
from coordinator.erasing import Erasing
from coordinator.erasure import Erasure
from coordinator.generation import Generation
from coordinator.requests.serving import MASK, Held, ServingPolicy, joined
from coordinator.serving.leases import Grant
from coordinator.serving.served import Served, both, locate, stale_shards

TTL_S = 2.0  # how long a replica answers without having heard from the office
HOLD_S = 0.5  # how long an answer is held back when nothing moved
EARLIER_S = TTL_S  # how long leases of an office before this one may still run
SWAP_S = 60.0  # a replica that does not take the next generation by then gets no more leases


@dataclass(eq=False)
class _Lease:
    """What one replica holds.

    Attributes:
        generation: the one it answers with.
        version: the newest it has confirmed.
        until: version granted -> when the last such grant runs out.
    """

    generation: int
    version: int
    until: dict[int, float] = field(default_factory=dict)

    def below(self, version: int, now: float) -> bool:
        """Whether it may still answer under something older than a version."""
        if self.version >= version:
            return False
        return any(granted < version and end > now for granted, end in self.until.items())

    def confirm(self, generation: int, version: int, now: float) -> None:
        """It answers with this generation under this version, as long as any earlier grant lets it.

        What was granted under an older mask goes on under the one that was put on since.
        """
        self.generation, self.version = generation, max(self.version, version)
        until: dict[int, float] = {}
        for granted, end in self.until.items():
            if end > now:
                name = max(granted, self.version)
                until[name] = max(until.get(name, 0.0), end)
        self.until = until


class Lessor:
    """Grants leases on the mask of one opened home.

    Args:
        erasing: what is masked.
        now: a monotonic clock, seconds.
        policy: what holds for requests that name no serving policy.
    """

    def __init__(
        self,
        erasing: Erasing,
        now: Callable[[], float] = time.monotonic,
        policy: ServingPolicy = MASK,
    ) -> None:
        self._erasing, self._now, self._policy = erasing, now, policy
        self._moved = threading.Condition()
        self._leases: dict[str, _Lease] = {}
        self._served: dict[int, Served] = {}
        self._masked: Mapping[str, Erasure] = {}
        self._version = time.time_ns()  # not that of an office before this one
        self._begins = now() + EARLIER_S  # by then nobody answers under its leases any more
        self._snapshot: _Snapshot | None = None
        self.refresh()

    @property
    def _engine(self) -> Engine:
        return self._erasing.engine

    # ---- the office's calls

    def refresh(self) -> int:
        """Take note of what is live and masked now; returns its version."""
        engine = self._engine
        with engine.locks.state, self._moved:
            found = self._erasing.mask  # first: where in doubt, it reads live again
            mask, policies = dict(found.erasures), dict(found.policies)
            live, before = engine.live, self._snapshot
            number = live.generation.number
            is_same = before is not None and before.generation.number == number
            if is_same and mask == self._masked:
                return self._version
            if number not in self._served:
                for served in self._served.values():
                    served.end(self._masked.values(), self._now())
                self._served[number] = Served(live.graph)
            same = {key for key, erasure in self._masked.items() if mask.get(key) == erasure}
            has_grown = len(same) == len(self._masked)
            fresh = {key: erasure for key, erasure in mask.items() if key not in same}
            if before is not None and is_same and has_grown:
                stale = joined(before.stale, self._stale(fresh, policies))
            else:
                stale = self._stale(mask, policies)
            for served in self._served.values():
                if has_grown and served.located is not None:
                    new = locate(served.graph, list(fresh.values()))
                    served.located = both(served.located, new)
                else:
                    served.located = locate(served.graph, [*mask.values(), *served.gone])
                served.stale = joined(served.kept, stale)
            self._masked = mask
            self._version += 1
            self._snapshot = _Snapshot(
                self._version,
                engine.ledger.epoch(),
                live.generation,
                live.aggregator.meta,
                stale,
            )
            self._moved.notify_all()
            return self._version

    def _stale(
        self, erasures: Mapping[str, Erasure], policies: Mapping[str, ServingPolicy]
    ) -> dict[int, ServingPolicy]:
        """Stale shard -> the strictest policy of the requests that make it so."""
        groups: dict[ServingPolicy, list[Erasure]] = {}
        for key, erasure in erasures.items():
            groups.setdefault(policies.get(key, self._policy), []).append(erasure)
        return joined(
            *(
                dict.fromkeys(stale_shards(self._engine, group), policy)
                for policy, group in groups.items()
            )
        )

    def note(self) -> None:
        """:meth:`refresh`, for whoever wants no version."""
        self.refresh()

    def in_force(self) -> None:
        """Wait until no replica answers under anything older than what holds now."""
        version = self.refresh()
        with self._moved:
            while self._now() < self._begins or any(
                lease.below(version, self._now()) for lease in self._leases.values()
            ):
                self._moved.wait(self._patience())

    def taken_over(self) -> None:
        """Wait until every replica with a lease answers with the published generation."""
        self.refresh()
        number = self._engine.live.generation.number
        with self._moved:
            while self._now() < self._begins or any(
                lease.generation != number and max(lease.until.values(), default=0) > self._now()
                for lease in self._leases.values()
            ):
                self._moved.wait(self._patience())
            self._leases = {k: v for k, v in self._leases.items() if v.generation == number}
            self._served = {number: self._served[number]}

    def _patience(self) -> float:
        ends = [end for lease in self._leases.values() for end in lease.until.values()]
        ends.append(self._begins)
        soonest = min((end for end in ends if end > self._now()), default=self._now())
        return max(soonest - self._now(), 0.01)

    def replicas(self) -> list[dict[str, Any]]:
        """Who holds a lease."""
        now = self._now()
        with self._moved:
            return [
                {
                    "replica": name,
                    "generation": lease.generation,
                    "is_current": lease.version >= self._version,
                    "expires_in_s": round(max(lease.until.values()) - now, 3),
                }
                for name, lease in sorted(self._leases.items())
                if max(lease.until.values(), default=0) > now
            ]

    def _now_holding(self) -> _Snapshot:
        assert self._snapshot is not None  # refresh() is called before anybody asks
        return self._snapshot

    # ---- the replicas' calls

    def lease(self, replica: str, generation: int | None, version: int) -> Grant:
        """Confirm what a replica answers under, and grant it the next two seconds.

        Args:
            replica: its name.
            generation: number of the generation it answers with; None where it has none yet.
            version: the version it is under, with no older answer on its way.

        Returns:
            What it may answer under from now on; held back up to HOLD_S when it knows that already.
        """
        end = self._now() + HOLD_S
        self._look()
        with self._moved:
            version = version if version <= self._version else 0  # of an office before this one
            if generation is not None:
                self._forget_ended()
                lease = self._leases.setdefault(replica, _Lease(generation, version))
                lease.confirm(generation, version, self._now())
                self._moved.notify_all()
            while self._version == version and self._now() < end:
                self._moved.wait(end - self._now())
            return self._grant(replica, generation)

    def _forget_ended(self) -> None:
        """Let go of replicas that were not heard of since their leases ran out."""
        now = self._now()
        ended = [k for k, v in self._leases.items() if max(v.until.values(), default=0.0) <= now]
        for name in ended:
            del self._leases[name]

    def _grant(self, replica: str, generation: int | None) -> Grant:
        found, served = self._now_holding(), self._served.get(generation or 0)
        current = found.generation.number
        is_over = served is None or (
            served.since is not None and self._now() - served.since > SWAP_S
        )
        left_s = self._engine.ledger.lease.left_s  # then another office may be the writer
        ttl = 0.0 if is_over else min(TTL_S, left_s)
        if ttl and replica in self._leases:
            self._leases[replica].until[found.version] = self._now() + ttl
        return Grant(
            generation=current,
            body=found.body() if generation != current else None,
            version=found.version,
            epoch=found.epoch,
            located=None if served is None else served.located,
            stale=found.stale if served is None else served.stale,
            ttl_s=ttl,
            policy=self._policy,
        )

    def _look(self) -> None:
        """:meth:`refresh`, unless somebody works on the state: then grants are as of before.

        That is safe, for whoever moves something refreshes after it and waits for what was granted;
        and replicas go on answering while a graph is cut or many files are destroyed.
        """
        state = self._engine.locks.state
        if state.acquire(timeout=HOLD_S):
            try:
                self.refresh()
            finally:
                state.release()

    def mask_of(self, generation: int) -> Grant:
        """What is masked in a generation that a replica is about to take, without a lease."""
        self._look()
        with self._moved:
            return self._grant("", generation)


@dataclass(frozen=True, eq=False)
class _Snapshot:
    version: int
    epoch: int
    generation: Generation
    aggregator_meta: Mapping[str, Any]
    stale: Held

    def body(self) -> dict[str, Any]:
        """The generation, as a ledger keeps it."""
        return self.generation.to_json() | {"aggregator": dict(self.aggregator_meta)}
