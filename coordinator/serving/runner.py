"""Threads that do what is due, again and again, whatever goes wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cluster.errors import LeaseError, UnweaveError
from coordinator.serving.settings import ServeSettings

logger = logging.getLogger(__name__)


class Runner:
    """Calls something again and again: when it is woken, and every ``poll_s`` seconds.

    A failure is logged by its code, since its text may name records; after many the pauses grow.

    Attributes:
        lost_lease: whether another process is the writer now; then nothing is done any more.
    """

    def __init__(self, name: str, work: Callable[[], object], settings: ServeSettings) -> None:
        self._name, self._work, self._settings = name, work, settings
        self._wake, self._ends, self._failures = threading.Event(), threading.Event(), 0
        self.lost_lease = False
        self._thread = threading.Thread(target=self._run, name=f"office-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def close(self) -> None:
        """End, when what is being done is done."""
        self._ends.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not (self._ends.is_set() or self.lost_lease):
            self._wake.clear()
            self._look()
            if not self._ends.is_set():
                self._wake.wait(self._pause())

    def _look(self) -> None:
        try:
            self._work()
            self._failures = 0
        except LeaseError as error:
            self.lost_lease = True
            extra = {"event": "lease_lost", "code": error.code, "worker": self._name}
            logger.error("another process is the writer now", extra=extra)
        except Exception as error:
            self._failures += 1
            code = error.code if isinstance(error, UnweaveError) else type(error).__name__
            extra = {"event": "run_failed", "code": code, "worker": self._name}
            logger.error("%s failed with %s", self._name, code, extra=extra)

    def _pause(self) -> float:
        """Seconds until the next look."""
        poll, longest = self._settings.poll_s, self._settings.max_pause_s
        return float(min(poll * 2 ** min(self._failures, 20), max(longest, poll)))
