"""What the office tells of requests and of the past."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from cluster.errors import RequestError
from coordinator.expecting import coming
from coordinator.ledger.tables import requests
from coordinator.requests.forecast import Coming
from coordinator.requests.record import RequestRecord, new_request_id
from coordinator.requests.states import CLOSED, OPEN, State
from coordinator.requests.times import as_utc
from coordinator.serving.desk import Desk
from coordinator.serving.settings import MAX_PAGE
from coordinator.serving.views import event_view, iso

EVENT_POLL_S: Final = 0.2
PREFIX_CHARS: Final = len("req_") + 10  # of a request id: the time in it
LONGEST_LIFE: Final = timedelta(days=150)  # from receipt to completion, extension included


def page_size(limit: int) -> int:
    """A limit as asked, within what a page may have."""
    return max(1, min(limit, MAX_PAGE))


class Reading(Desk):
    """Reads requests; changes nothing."""

    def find(
        self,
        state: str | None = None,
        due_before: str | datetime | None = None,
        kind: str | None = None,
        parent_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        parts: bool = False,
        external_request_id: str | None = None,
        batch_id: str | None = None,
    ) -> dict[str, Any]:
        """A page of requests in the order of their receipt.

        Args:
            state: one state, or ``open`` or ``closed``.
            due_before: due earlier than this.
            kind: of this kind.
            parent_id: parts of this request.
            cursor: ``next_cursor`` of the page before.
            limit: at most so many.
            parts: list parts of files beside their parents, which else stand for them.
            external_request_id: with this name.
            batch_id: in this batch; its parts are always listed.

        Raises:
            RequestError: the state or the time is none.
        """
        size = page_size(limit)
        if isinstance(due_before, str):
            due_before = _time(due_before)
        found = self.ledger.requests.find(
            state=_states(state),
            due_before=due_before,
            kind=kind,
            parent_id=parent_id,
            external_request_id=external_request_id,
            batch_id=batch_id,
            after=cursor,
            limit=size + 1,
            parts=parts or parent_id is not None or batch_id is not None,
        )
        items = self.all_views(found[:size])
        more = len(found) > size
        return {"items": items, "next_cursor": items[-1]["request_id"] if more else None}

    def coming_batches(self, most: int = 5) -> list[dict[str, Any]]:
        """The next batches, if nothing else is asked and nobody acts.

        Args:
            most: so many at most.
        """
        accepted, found = coming(self.system.erasing, most)
        records = {record.request_id: record for record in accepted}
        return [_coming_view(item, records) for item in found]

    def request(self, request_id: str) -> dict[str, Any]:
        """One request; of a file of ids also ``parts``, the number in each state.

        Raises:
            NotFoundError: there is none of that id.
        """
        found = self.view(self.record(request_id))
        counts = self.ledger.requests.child_counts(request_id)
        return found | {"parts": {str(state): number for state, number in sorted(counts.items())}}

    def events(self, request_id: str, after: int = 0, wait_s: float = 0.0) -> list[dict[str, Any]]:
        """What happened to a request since event number ``after``, oldest first.

        Args:
            request_id: the request.
            after: number of the last event seen.
            wait_s: how long to wait for a newer one, where there is none.

        Raises:
            NotFoundError: there is none of that id.
        """
        self.record(request_id)
        end = time.monotonic() + wait_s
        while True:
            found = self.ledger.requests.events(request_id, after)
            left = end - time.monotonic()
            if found or left <= 0:
                return [event_view(event) for event in found]
            time.sleep(min(EVENT_POLL_S, left))

    def history(self, days: int = 30) -> dict[str, Any]:
        """What was asked and done in the last days, and what its batches cost.

        Returns:
            ``per_day``: day, number of requests received and completed, oldest first; ``batches``:
            batch_id, at, seconds, shards, requests, full_retrain_s, oldest first.
        """
        today = self.clock().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = today - timedelta(days=max(days, 1) - 1)
        asked, erased, seconds = Counter[str](), Counter[str](), dict[str, float]()
        for record in self._since(start - LONGEST_LIFE):
            if record.received_at >= start:
                asked[_day(record.received_at)] += 1
            if record.completed_at is not None and record.completed_at >= start:
                erased[_day(record.completed_at)] += 1
            if record.batch_id and record.receipt is not None:
                seconds[record.batch_id] = float(record.receipt.get("seconds", 0.0))
        names = [_day(start + timedelta(days=n)) for n in range((today - start).days + 1)]
        per_day = [{"day": d, "requests": asked[d], "erased": erased[d]} for d in names]
        batches = [
            {
                "batch_id": batch.batch_id,
                "at": iso(batch.started_at),
                "state": batch.state,
                "seconds": seconds.get(batch.batch_id),
                "shards": list(batch.shards),
                "requests": batch.num_requests,
                "full_retrain_s": self.full_retrain_s,
            }
            for batch in self.ledger.batches.list()
            if batch.started_at >= start
        ]
        return {"per_day": per_day, "batches": batches}

    def _since(self, start: datetime) -> list[RequestRecord]:
        after = new_request_id(max(start, datetime(1970, 1, 2, tzinfo=UTC)))[:PREFIX_CHARS]
        return self.ledger.requests.find(after=after)

    def oldest_due(self) -> str | None:
        """When the request that is due first is due; None where none is open."""
        c = requests.c
        query = select(func.min(c.due_at)).where(c.state.in_([str(state) for state in OPEN]))
        with self.ledger.read() as tx:
            return iso(tx.execute(query).scalar_one())


def _states(text: str | None) -> State | frozenset[State] | None:
    groups: Mapping[str | None, frozenset[State] | None] = {
        None: None,
        "open": OPEN,
        "closed": CLOSED,
    }
    if text in groups:
        return groups[text]
    try:
        return State(text or "")
    except ValueError:
        raise RequestError(
            f"state is {text!r}; choose open, closed or one of {[str(s) for s in State]}"
        ) from None


def _time(text: str) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(text), "due_before")
    except ValueError:
        raise RequestError(f"due_before is {text!r}; give an ISO 8601 time with its zone") from None


def _day(value: datetime) -> str:
    return value.astimezone(UTC).date().isoformat()


def _coming_view(item: Coming, records: Mapping[str, RequestRecord]) -> dict[str, Any]:
    """A batch that is foretold; ``shared``: shards that several of its requests reach."""
    members = [records[request_id] for request_id in item.decision.batch]
    reached = Counter(shard for record in members for shard in record.shards)
    return {
        "starts_at": iso(item.starts_at),
        "ends_at": iso(item.ends_at),
        "why": item.decision.text,
        "requests": len(members),
        "due_at": iso(min(record.due_at for record in members)),
        "shards": list(item.decision.shards),
        "shared": sorted(shard for shard, count in reached.items() if count > 1),
    }
