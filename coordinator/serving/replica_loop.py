"""The thread that keeps a replica under a lease and brings it from generation to generation."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from cluster.errors import UnweaveError
from coordinator.serving.answers import Coming
from coordinator.serving.leases import Grant
from coordinator.serving.replica import Replica

logger = logging.getLogger(__name__)

AHEAD = 256  # answers that are computed ahead at a time
BREATH_S, IDLE_S = 0.02, 0.5  # between two times: while there is more to compute, and when not
PAUSE_S = 0.1  # after a call that failed, and while there is nothing to answer with yet


class Lending(Protocol):
    """The office, as a replica sees it."""

    def lease(self, replica: str, generation: int | None, version: int) -> Grant:
        """See :meth:`coordinator.serving.lessor.Lessor.lease`."""
        ...

    def mask_of(self, generation: int) -> Grant:
        """See :meth:`coordinator.serving.lessor.Lessor.mask_of`."""
        ...


class ReplicaLoop:
    """Asks for leases all the time; a second thread reads the next generation meanwhile.

    Args:
        replica: what answers.
        office: who grants.
        name: the replica's name.
    """

    def __init__(self, replica: Replica, office: Lending, name: str) -> None:
        self._replica, self._office, self._name = replica, office, name
        self._ends = threading.Event()
        self._lock = threading.Lock()  # around what is being read, and what was
        self._reading: int | None = None
        self._ready: Coming | None = None
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)
        self._warmer = threading.Thread(target=self._warm, name="warm", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._warmer.start()

    def close(self) -> None:
        """End; the lease runs out by itself."""
        self._ends.set()
        self._thread.join()
        self._warmer.join()

    def require_alive(self) -> None:
        """Check that the thread lives.

        Raises:
            RuntimeError: it has ended.
        """
        if not self._thread.is_alive():
            raise RuntimeError("the thread that asks for leases has ended")

    def _work(self) -> None:
        while not self._ends.is_set():
            try:
                self.step()
            except Exception as error:  # the lease runs out by itself; go on asking
                self._note("no lease", error)
                self._ends.wait(PAUSE_S)

    def _warm(self) -> None:
        """Compute answers ahead, a few at a time, so that a question finds the table filled."""
        left = 0
        while not self._ends.wait(BREATH_S if left else IDLE_S):
            try:
                left = self._replica.warm(AHEAD)
            except Exception as error:
                self._note("answers could not be computed ahead", error)
                left = 0

    def step(self) -> None:
        """Take the next generation if it is ready, confirm, and take what is granted."""
        self._take()
        replica, asked_at = self._replica, time.monotonic()
        grant = self._office.lease(self._name, replica.generation, replica.version)
        if grant.body is not None and self._begin(grant.generation):
            threading.Thread(target=self._read, args=(grant,), name="reader", daemon=True).start()
        if replica.generation is None:
            self._ends.wait(PAUSE_S)
        else:
            replica.renew(grant, asked_at)

    def _begin(self, generation: int) -> bool:
        """Note that a generation is being read; whether it was not before."""
        with self._lock:
            is_new, self._reading = self._reading != generation, generation
            return is_new

    def _give_up(self, generation: int) -> None:
        """Have a generation read again, unless a later one is being read."""
        with self._lock:
            if self._reading == generation:
                self._reading = None

    def _read(self, grant: Grant) -> None:
        """Read a generation; one that is purged meanwhile is left for the one after it."""
        assert grant.body is not None
        try:
            coming = self._replica.read(grant.generation, grant.body)
            coming = coming.under(self._office.mask_of(grant.generation))
            with self._lock:
                if self._reading == grant.generation:  # else a later one is being read
                    self._ready = coming
        except Exception as error:
            self._note("a generation could not be read", error)
            self._ends.wait(PAUSE_S)
            self._give_up(grant.generation)

    def _take(self) -> None:
        """Switch to a generation that was read, under what is masked by now."""
        coming = self._ready
        if coming is None:
            return
        grant = self._office.mask_of(coming.generation)  # where that fails, it is tried again
        with self._lock:
            if self._ready is coming:
                self._ready = None
        try:
            self._replica.take(coming.under(grant))
        except Exception as error:  # also where a later one was published, and this one is over
            self._note("a generation could not be taken", error)
            self._give_up(coming.generation)

    def _note(self, what: str, error: Exception) -> None:
        code = error.code if isinstance(error, UnweaveError) else type(error).__name__
        logger.warning("%s: %s", what, code, extra={"event": "replica", "code": code})
