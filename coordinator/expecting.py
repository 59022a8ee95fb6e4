"""What an opened home will probably do when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from coordinator.batch import OPEN as OPEN_BATCH
from coordinator.erasing import Erasing
from coordinator.requests.forecast import Coming, coming_batches, expected_completion
from coordinator.requests.record import RequestRecord
from coordinator.requests.scheduler import estimate

LOOKED_AT: Final = 1000  # waiting requests that coming batches are foretold from


def expected(erasing: Erasing, records: Sequence[RequestRecord]) -> list[datetime | None]:
    """When each of some requests will probably be completed; None where that is up to somebody.

    A request that meets one on hold waits as long as that one does.
    """
    engine, now = erasing.engine, erasing.clock()
    live, mask = engine.live, erasing.last_mask
    waits = {
        record.request_id
        for record in records
        if record.request_id in mask.erasures and mask.is_held(record.request_id)
    }
    policy, costs = engine.config.erasure, live.generation.costs
    busy_until = _busy_until(erasing, now)
    shards = live.partition.num_shards
    return [
        None
        if record.request_id in waits
        else expected_completion(record, now, policy, costs, shards, busy_until)
        for record in records
    ]


def coming(erasing: Erasing, most: int) -> tuple[list[RequestRecord], list[Coming]]:
    """Accepted requests, the first ``LOOKED_AT`` of them, and the batches they will go in."""
    engine, now = erasing.engine, erasing.clock()
    live, mask, accepted = engine.live, erasing.last_mask, erasing.accepted(LOOKED_AT)
    known = (r.request_id for r in accepted if r.request_id in mask.erasures)
    held = {request_id for request_id in known if mask.is_held(request_id)}
    found = coming_batches(
        accepted,
        _busy_until(erasing, now),
        engine.config.erasure,
        live.generation.costs,
        live.partition.num_shards,
        held,
        most=most,
    )
    return accepted, found


def _busy_until(erasing: Erasing, now: datetime) -> datetime:
    """When the batches at work will probably end."""
    engine = erasing.engine
    begun = engine.ledger.batches.list(state=OPEN_BATCH)
    costs = engine.live.generation.costs
    ends = [batch.started_at + timedelta(seconds=estimate(batch.shards, costs)) for batch in begun]
    return max([now, *ends])
