"""Parents: requests that are a file of ids; their state follows from that of their parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from coordinator.ledger import Ledger
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import CLOSED, OPEN, State

FILE: Final = "file"  # kind of a parent
PAGE: Final = 1000  # parts read at a time
_ATTENTION: Final = (State.FAILED, State.ON_HOLD, State.NEEDS_APPROVAL)
_WAY: Final = (
    State.RECEIVED,
    State.ACCEPTED,
    State.SCHEDULED,
    State.RUNNING,
    State.VERIFYING,
    State.UNLEARNED,
    State.PURGING,
)
_END: Final = (State.COMPLETED, State.CANCELLED, State.REJECTED, State.DUPLICATE)


def parent_state(counts: Mapping[State, int]) -> State:
    """State of a parent, from the number of its parts in each state.

    While a part is open: the first of failed, on_hold, needs_approval that any part is in, else
    that of the part that is least far. Then: the first of completed, cancelled, rejected, duplicate
    that any part is in. Without parts there was nothing to forget: completed.
    """
    there = {state for state, count in counts.items() if count}
    order = (*_ATTENTION, *_WAY, *_END)
    return next((state for state in order if state in there), State.COMPLETED)


def is_parent(record: RequestRecord) -> bool:
    """Whether a request is carried out as its parts."""
    return record.kind == FILE


def parts_of(
    ledger: Ledger, parent_id: str, states: Collection[State] | None = None
) -> Iterator[RequestRecord]:
    """The parts of a request in the order of their ids, read in pages."""
    after: str | None = None
    while True:
        page = ledger.requests.find(parent_id=parent_id, state=states, limit=PAGE, after=after)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].request_id


def refresh_parents(ledger: Ledger, now: datetime) -> None:
    """Bring every open parent whose file was read to the end to the state of its parts."""
    parents = ledger.requests.find(kind=FILE, state=OPEN - {State.RECEIVED})
    pairs = [(record, moved_on(ledger, record, now)) for record in parents]
    pairs = [(before, after) for before, after in pairs if before != after]
    if not pairs:
        return
    with ledger.write() as tx:
        ledger.requests.change_many(tx, pairs, "parts", at=now)


def moved_on(ledger: Ledger, parent: RequestRecord, now: datetime) -> RequestRecord:
    """A parent in the state that its parts are in now."""
    return in_state(parent, parent_state(ledger.requests.child_counts(parent.request_id)), now)


def in_state(parent: RequestRecord, state: State, now: datetime) -> RequestRecord:
    """A parent in another state, with the times that belong to it."""
    begun = parent.started_at or (now if state in _WAY[2:] or state is State.COMPLETED else None)
    ended = now if state is State.COMPLETED else None
    changed = replace(parent, state=state, started_at=begun)
    return replace(changed, completed_at=ended) if state in CLOSED else changed
