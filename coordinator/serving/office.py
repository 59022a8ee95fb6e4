"""Office: the one process that writes; every question and every request ends here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from coordinator.batch import OPEN as OPEN_BATCH
from coordinator.engine import utc_now
from coordinator.ledger.callback_table import DEAD, PENDING
from coordinator.pools import Pool
from coordinator.serving.access import Access
from coordinator.serving.granting import Granting
from coordinator.serving.intake import Intake
from coordinator.serving.observed import Observed
from coordinator.serving.proofs import Proofs
from coordinator.serving.reading import Reading
from coordinator.serving.runner import Runner
from coordinator.serving.settings import ServeSettings
from coordinator.serving.sights import Sights
from coordinator.serving.views import iso
from coordinator.serving.webhooks import Caller
from coordinator.system import System


class Office(Granting, Intake, Reading, Sights, Proofs, Access):
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
        self.lock, self.stage, self.plans = threading.RLock(), None, OrderedDict()
        self.caller, self.observed = Caller(self.settings), Observed()
        self._status: tuple[str, dict[str, Any]] | None = None
        self.system = System.open(
            home,
            pool=pool,
            progress=self._note_stage,
            clock=clock,
            settle=not self.settings.run_batches,  # else a runner does, and leases are granted
        )
        self.listen()
        batches = Runner("batches", self._run_due, self.settings)
        calls = Runner("callbacks", self.deliver, self.settings)
        self.runners = (batches, calls)
        if self.settings.run_batches:
            for runner in self.runners:
                runner.start()

    def close(self) -> None:
        """End the batch at work, and give the home back."""
        for runner in self.runners:
            runner.close()
        self.system.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _note_stage(self, stage: str, done: int, total: int) -> None:
        self.stage = (stage, done, total)

    def _run_due(self) -> None:
        """Carry out what is due, and take note of how long it took; forget plans of old."""
        with self.lock:
            self.let_go_of_plans(self.clock())
        begun = self.ledger.batches.list(state=OPEN_BATCH)
        if not begun and not self.system.erasing.next_batch().batch:
            return
        done = self.system.run()
        self.stage = None
        for batch_id in done:
            self.observed.note(self.ledger.requests.find(batch_id=batch_id))

    # ---- what it is

    def info(self) -> dict[str, Any]:
        """Who this is, and whether it can work."""
        generation, lease = self.system.generation, self.ledger.lease
        has_lost = lease.is_lost or any(runner.lost_lease for runner in self.runners)
        return {
            "version": version("unweave"),
            "home_id": self.ledger.setting("home_id"),
            "issuer": self.system.engine.issuer,
            "ready": not has_lost,
            "generation": generation.number,
            "epoch": self.ledger.epoch(),
            "id_type": self.schema.id_type,
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
            "replicas": self.replicas(),
            "now": iso(self.clock()),
        }

    def metrics(self) -> dict[str, Any]:
        """Numbers to watch; ``retrain_seconds`` and ``erasure_latency_seconds`` as histograms."""
        now, counts = self.clock(), self.ledger.requests.counts()
        oldest = self.oldest_due()
        left = None if oldest is None else (datetime.fromisoformat(oldest) - now).total_seconds()
        told = self.ledger.callbacks.counts()
        return {
            "queue_depth": counts,
            "oldest_due_s": left,
            "stale_shards": len(self.stale_shards()),
            "mask_lag_s": self.mask_lag_s,
            "replicas": len(self.replicas()),
            "generation": self.system.generation.number,
            "epoch": self.ledger.epoch(),
            "ready": self.info()["ready"],
            "deliveries": {state: told.get(state, 0) for state in (PENDING, DEAD)},
        } | self.observed.to_json()
