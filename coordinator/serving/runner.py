"""The thread that carries out what is due, and goes on after whatever goes wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime

from cluster.errors import LeaseError, UnweaveError
from coordinator.ledger.batch_table import Batch
from coordinator.serving.settings import ServeSettings
from coordinator.system import System

logger = logging.getLogger(__name__)
OPEN = "open"


class Runner:
    """Calls :meth:`System.run` when something is due.

    Attributes:
        lost_lease: whether another process is the writer now; then nothing is done any more.
    """

    def __init__(
        self,
        system: System,
        settings: ServeSettings,
        clock: Callable[[], datetime],
        wake: threading.Event,
        done: Callable[[list[str]], None],
    ) -> None:
        self._system, self._settings, self._clock = system, settings, clock
        self._wake, self._done = wake, done
        self._ends, self._failures = threading.Event(), 0
        self.lost_lease = False
        self._thread = threading.Thread(target=self._work, name="office-runner", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a batch at work is ended first."""
        self._ends.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._ends.is_set():
            self._wake.clear()
            self._look()
            if self.lost_lease:
                return
            self._wake.wait(self._pause())

    def _look(self) -> None:
        """Run what is due; a failure is logged by its code, since its text may name records."""
        try:
            if self._is_due():
                self._done(self._system.run())
            self._failures = 0
        except LeaseError as error:
            self.lost_lease = True
            logger.error("lease lost", extra={"event": "lease_lost", "code": error.code})
        except Exception as error:
            self._failures += 1
            code = error.code if isinstance(error, UnweaveError) else type(error).__name__
            extra = {"event": "run_failed", "code": code, "failures": self._failures}
            logger.error("a run failed with %s", code, extra=extra)

    def _is_due(self) -> bool:
        begun: list[Batch] = list(self._system.engine.ledger.batches.list(state=OPEN))
        return bool(begun or self._system.erasing.next_batch().batch)

    def _pause(self) -> float:
        """Seconds until the next look: soon after a failure, later after many."""
        poll, longest = self._settings.poll_s, self._settings.max_pause_s
        return float(min(poll * 2 ** min(self._failures, 20), longest) if self._failures else poll)
