"""Office: the one process that writes; every question and every request ends here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from coordinator.engine import utc_now
from coordinator.pools import Pool
from coordinator.serving.intake import Intake
from coordinator.serving.proofs import Proofs
from coordinator.serving.reading import Reading
from coordinator.serving.runner import Runner
from coordinator.serving.settings import ServeSettings
from coordinator.serving.sights import Sights
from coordinator.serving.views import iso
from coordinator.system import System


class Office(Intake, Reading, Sights, Proofs):
    """Opens a home and answers for it; methods may be called from several threads.

    Arguments and results can be pickled; result dicts are plain JSON with ISO times.
    """

    def __init__(
        self,
        home: str | Path,
        pool: str | Pool = "ray",
        clock: Callable[[], datetime] = utc_now,
        settings: ServeSettings | None = None,
    ) -> None:
        self.clock, self.settings = clock, settings or ServeSettings()
        self.lock, self.wake, self.stage = threading.RLock(), threading.Event(), None
        self.plans = OrderedDict()
        self._status: tuple[str, dict[str, Any]] | None = None
        self.system = System.open(home, pool=pool, progress=self._note_stage, clock=clock)
        self._runner = Runner(self.system, self.settings, clock, self.wake, self._note_done)
        if self.settings.run_batches:
            self._runner.start()

    def close(self) -> None:
        """End the batch at work, and give the home back."""
        self._runner.close()
        self.system.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _note_stage(self, stage: str, done: int, total: int) -> None:
        self.stage = (stage, done, total)

    def _note_done(self, batch_ids: list[str]) -> None:
        self.stage = None

    # ---- what it is

    def info(self) -> dict[str, Any]:
        """Who this is, and whether it can work."""
        generation = self.system.generation
        return {
            "version": version("unweave"),
            "home_id": self.ledger.setting("home_id"),
            "issuer": self.system.engine.issuer,
            "ready": not self._runner.lost_lease,
            "generation": generation.number,
            "epoch": self.ledger.epoch(),
        }

    def status(self) -> dict[str, Any]:
        """:meth:`System.status`, and what waits; the part that is slow is kept per generation."""
        key = str(self.system.generation.key)
        with self.lock:
            kept = self._status
        if kept is None or kept[0] != key:
            kept = key, self.system.status()
            with self.lock:
                self._status = kept
        counts = self.ledger.requests.counts()
        return kept[1] | {
            "epoch": self.ledger.epoch(),
            "requests": counts,
            "queue": counts,
            "shards": self.shards(),
            "stale_shards": self.stale_shards(),
            "oldest_due": self.oldest_due(),
            "progress": self.progress(),
            "now": iso(self.clock()),
        }
