"""What every part of the office shares."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from cluster.errors import NotFoundError
from coordinator.ledger import Ledger
from coordinator.requests.record import RequestRecord
from coordinator.serving.settings import ServeSettings
from coordinator.serving.views import request_view
from coordinator.system import System


class Desk:
    """An opened home and the state that is not in its ledger.

    Attributes:
        system: the opened home.
        clock: tells the time.
        settings: limits and habits.
        lock: around the office's own state; held for moments only.
        wake: set when there may be something to run.
        stage: what the batch at work is doing: (stage, done, total), or None.
    """

    system: System
    clock: Callable[[], datetime]
    settings: ServeSettings
    lock: threading.RLock
    wake: threading.Event
    stage: tuple[str, int, int] | None

    @property
    def ledger(self) -> Ledger:
        """The home's record of truth."""
        return self.system.engine.ledger

    @property
    def full_retrain_s(self) -> float:
        """Seconds that the last trainings of all shards took."""
        return float(sum(self.system.generation.costs.values()))

    def record(self, request_id: str) -> RequestRecord:
        """A request as the ledger has it.

        Raises:
            NotFoundError: there is none of that id.
        """
        found = self.ledger.requests.get(request_id)
        if found is None:
            raise NotFoundError("request", "list them with GET /v1/erasures")
        return found

    def view(self, record: RequestRecord) -> dict[str, Any]:
        """A request as JSON."""
        return request_view(record, self.clock(), self.full_retrain_s, (), self.progress())

    def progress(self) -> dict[str, Any] | None:
        """What the batch at work is doing."""
        stage = self.stage
        if stage is None:
            return None
        return {"stage": stage[0], "shards_done": stage[1], "shards_total": stage[2]}

    def moved(self) -> None:
        """Something was asked or decided: look for work."""
        self.wake.set()
