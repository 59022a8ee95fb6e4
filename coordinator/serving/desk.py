"""What every part of the office shares."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from cluster.errors import NotFoundError
from cluster.schema import Schema
from coordinator.expecting import expected
from coordinator.ledger import Ledger
from coordinator.requests.record import RequestRecord
from coordinator.serving.runner import Runner
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
        runners: the threads that carry out batches and make calls.
        stage: what the batch at work is doing: (stage, done, total), or None.
    """

    system: System
    clock: Callable[[], datetime]
    settings: ServeSettings
    lock: threading.RLock
    runners: Sequence[Runner]
    stage: tuple[str, int, int] | None

    @property
    def ledger(self) -> Ledger:
        """The home's record of truth."""
        return self.system.engine.ledger

    @property
    def schema(self) -> Schema:
        """Of the graph, whatever is masked; waits for nobody who works on the state."""
        return self.system.engine.live.graph.schema

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
        return self.all_views([record])[0]

    def all_views(self, records: Sequence[RequestRecord]) -> list[dict[str, Any]]:
        """Requests as JSON, with one look at their callbacks."""
        now, cost, progress = self.clock(), self.full_retrain_s, self.progress()
        told = self._told([record.request_id for record in records])
        times = expected(self.system.erasing, records)
        return [
            request_view(record, now, cost, told.get(record.request_id, ()), progress, at)
            for record, at in zip(records, times, strict=True)
        ]

    def _told(self, request_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Request id -> its callbacks by host; the rest of a URL may name anybody."""
        found: dict[str, list[dict[str, Any]]] = {}
        for item in self.ledger.callbacks.of_requests(request_ids):
            view = {name: getattr(item, name) for name in ("callback_id", "host", "secret_id")}
            found.setdefault(item.request_id, []).append(view)
        return found

    def progress(self) -> dict[str, Any] | None:
        """What the batch at work is doing."""
        stage = self.stage
        if stage is None:
            return None
        trained = sorted(self.system.engine.trained)
        return {
            "stage": stage[0],
            "shards_done": stage[1],
            "shards_total": stage[2],
            "shards_trained": trained,
        }

    def moved(self) -> None:
        """Something was asked or decided: look for work."""
        for runner in self.runners:
            runner.wake()
