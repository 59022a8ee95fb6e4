"""Request: a user's handle on what was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from cluster.errors import RequestError
from coordinator.certificates import Certificate, find_certificate
from coordinator.expecting import expected
from coordinator.requests.record import Event, RequestRecord
from coordinator.requests.states import CLOSED, Action, State
from coordinator.results import Receipt

if TYPE_CHECKING:
    from coordinator.erasing import Erasing

POLL_S = 0.2


class Request:
    """One erasure request; every property reads the ledger."""

    def __init__(self, erasing: Erasing, request_id: str) -> None:
        self._erasing, self.request_id = erasing, request_id

    def __repr__(self) -> str:
        record = self.record
        return f"Request({self.request_id}, {record.state}, due {record.due_at.isoformat()})"

    @property
    def record(self) -> RequestRecord:
        """Everything that is known of it; holds no ids."""
        return self._erasing.record(self.request_id)

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.record.state

    @property
    def receipt(self) -> Receipt | None:
        """What it did; None until the models without the records are live."""
        receipt = self.record.receipt
        return None if receipt is None else Receipt.from_json(receipt)

    @property
    def certificate(self) -> Certificate | None:
        """Its certificate; None until it is completed."""
        ledger = self._erasing.engine.ledger
        done = self.record.certificate_id
        return None if done is None else find_certificate(ledger, done)

    @property
    def acceptance(self) -> str | None:
        """Its signed acceptance receipt, a DSSE envelope; None until it is accepted."""
        return self.record.acceptance

    @property
    def expected_completion_at(self) -> datetime | None:
        """When it will probably be completed; None where that is up to somebody, or it is."""
        return expected(self._erasing, [self.record])[0]

    def events(self, after: int = 0, *, follow: bool = False) -> Iterator[Event]:
        """Its changes of state, oldest first.

        Args:
            after: the number of the last event seen.
            follow: go on, carrying out what is due meanwhile, until it is closed.
        """
        while True:
            for event in self._erasing.engine.ledger.requests.events(self.request_id, after):
                after = event.seq
                yield event
            if not follow or self.state in CLOSED:
                return
            self._erasing.run()
            time.sleep(POLL_S)

    def wait(self, timeout: float | None = None) -> Receipt | None:
        """Carry out what is due until this request is closed.

        Args:
            timeout: seconds to wait at most; None for as long as its window needs.

        Returns:
            Its receipt; None where there is none, since it was cancelled, rejected or a duplicate.

        Raises:
            RequestError: it failed for good, waits for a person, or the time is over.
        """
        started = time.monotonic()
        while True:
            self._erasing.run()
            record = self.record
            if record.state in CLOSED:
                return self.receipt
            if record.state in (State.FAILED, State.NEEDS_APPROVAL, State.ON_HOLD):
                raise RequestError(
                    f"{self.request_id} is {record.state} ({record.reason or 'no reason given'}) "
                    "and waits for somebody to retry, approve or release it"
                )
            if timeout is not None and time.monotonic() - started >= timeout:
                raise RequestError(
                    f"{self.request_id} is {record.state} after {timeout} s; it goes on when "
                    f"its window opens (cancellable until {record.cancel_until.isoformat()}); "
                    "expedite() it to have it done at once"
                )
            time.sleep(POLL_S)

    def cancel(self, by: str = "", reason: str = "") -> RequestRecord:
        """Take it back, while its window is open; its records are read again."""
        return self._act(Action.CANCEL, by, reason)

    def approve(self, by: str) -> RequestRecord:
        """Approve it; not by whoever asked."""
        return self._act(Action.APPROVE, by, "")

    def reject(self, by: str, reason: str) -> RequestRecord:
        """Turn it down, with a reason that the person can be told."""
        return self._act(Action.REJECT, by, reason)

    def hold(self, by: str, reason: str) -> RequestRecord:
        """Keep its records from being destroyed, for a legal claim; they stay masked."""
        return self._act(Action.HOLD, by, reason)

    def release(self, by: str, reason: str = "") -> RequestRecord:
        """End a hold."""
        return self._act(Action.RELEASE, by, reason)

    def extend(self, by: str, reason: str) -> RequestRecord:
        """Move the due date as its regulation allows, once."""
        return self._act(Action.EXTEND, by, reason)

    def expedite(self, by: str = "", reason: str = "") -> RequestRecord:
        """Do it at once; it can no longer be cancelled."""
        return self._act(Action.EXPEDITE, by, reason)

    def retry(self, by: str = "", reason: str = "") -> RequestRecord:
        """Try again what failed for good."""
        return self._act(Action.RETRY, by, reason)

    def _act(self, action: Action, by: str, reason: str) -> RequestRecord:
        return self._erasing.act(self.request_id, action, by=by, reason=reason)
