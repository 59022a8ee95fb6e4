"""The office's callbacks: who is told of a request, and the thread that tells them.

Every event of a request becomes a delivery for each of its callbacks, since the events are
durable: at least once, with growing pauses for three days, then as a dead letter.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from cluster.errors import NotFoundError, RequestError
from coordinator.ledger.callback_table import DEAD, DELIVERED, PENDING, Callback, Delivery
from coordinator.requests.states import CLOSED
from coordinator.serving.desk import Desk
from coordinator.serving.settings import MAX_PAGE
from coordinator.serving.views import event_view, iso
from coordinator.serving.webhooks import DELIVERY, SIGNATURE, Caller, Outcome, check_url, signature

logger = logging.getLogger(__name__)

LIFE: Final = timedelta(days=3)  # then a delivery is dead
FIRST_PAUSE: Final = timedelta(seconds=10)
LONGEST_PAUSE: Final = timedelta(hours=6)
MAX_CALLBACKS: Final = 5  # of one request
WORKERS: Final = 4  # calls at the same time
AT_ONCE: Final = 200  # deliveries of one look
SECRET_BYTES: Final = 32
PRUNE_EVERY: Final = timedelta(hours=1)


def next_state(delivery: Delivery, outcome: Outcome, now: datetime) -> Delivery:
    """A delivery after a try: delivered, to be tried again after a longer pause, or dead."""
    tried = replace(
        delivery,
        attempts=delivery.attempts + 1,
        last_status=outcome.status,
        last_error=outcome.error,
    )
    if not outcome.error:
        return replace(tried, state=DELIVERED)
    pause = min(FIRST_PAUSE * 2 ** min(delivery.attempts, 20), LONGEST_PAUSE)
    if now + pause > delivery.created_at + LIFE:
        return replace(tried, state=DEAD)
    return replace(tried, next_at=now + pause)


class Callbacks(Desk):
    """Keeps callbacks and signing secrets, and delivers events.

    Attributes:
        caller: makes the calls.
        pruned_at: when what was told long ago was last let go of.
    """

    caller: Caller
    pruned_at: datetime | None = None

    # ---- secrets

    def create_webhook_secret(self, by: str, note: str = "") -> dict[str, Any]:
        """Make a signing secret; it is shown here once."""
        now, name = self.clock(), f"whs_{secrets.token_hex(8)}"
        text = secrets.token_urlsafe(SECRET_BYTES)
        with self.ledger.write() as tx:
            self.ledger.callbacks.add_secret(tx, name, text, note, now)
            detail = {"secret": name}
            self.ledger.audit.append(tx, "create_webhook_secret", by, None, detail, at=now)
        return {"secret_id": name, "secret": text, "note": note, "created_at": iso(now)}

    def list_webhook_secrets(self) -> list[dict[str, Any]]:
        """All signing secrets, without what they are."""
        return [
            {
                "secret_id": item.secret_id,
                "note": item.note,
                "created_at": iso(item.created_at),
                "deleted_at": iso(item.deleted_at),
            }
            for item in self.ledger.callbacks.secrets()
        ]

    def delete_webhook_secret(self, secret_id: str, by: str) -> None:
        """Take a signing secret back, and destroy it; callbacks that name it fail from then on.

        Raises:
            NotFoundError: there is none.
        """
        if self.ledger.callbacks.secret(secret_id) is None:
            raise NotFoundError("webhook secret", "list them with GET /v1/webhook-secrets")
        now = self.clock()
        with self.ledger.write() as tx:
            self.ledger.callbacks.delete_secret(tx, secret_id, now)
            detail = {"secret": secret_id}
            self.ledger.audit.append(tx, "delete_webhook_secret", by, None, detail, at=now)

    # ---- callbacks

    def check_callbacks(self, asked: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
        """URL, host and secret id of each callback that is asked.

        Raises:
            RequestError: there are too many, a URL may not be called, or a secret is unknown.
        """
        if len(asked) > MAX_CALLBACKS:
            raise RequestError(f"{len(asked)} callbacks; a request has {MAX_CALLBACKS} at most")
        found = []
        for item in asked:
            parts = check_url(str(item["url"]), self.settings)
            if self.ledger.callbacks.secret(str(item["secret_id"])) is None:
                raise RequestError("secret_id of a callback is unknown; POST /v1/webhook-secrets")
            found.append((str(item["url"]), str(parts.hostname), str(item["secret_id"])))
        return found

    def add_callbacks(self, request_id: str, checked: Sequence[tuple[str, str, str]]) -> None:
        """Have a request's events told; what is told already stays as it is.

        Of a request that was asked so long ago that its callbacks may be let go of, nothing is told
        again.
        """
        if not checked:
            return
        now = self.clock()
        if (self.record(request_id).submitted_at or now) < now - self._kept_for:
            return
        found = [
            Callback(self._name(request_id, url), request_id, host, url, secret_id)
            for url, host, secret_id in checked
        ]
        with self.ledger.write() as tx:
            self.ledger.callbacks.add(tx, found)

    def _name(self, request_id: str, url: str) -> str:
        return f"cbk_{self.ledger.mark('callback', request_id, url).hex()[:26]}"

    # ---- deliveries

    def deliveries(
        self, state: str | None = None, request_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Deliveries, oldest first, as many as a page may have.

        Raises:
            RequestError: the state is none.
        """
        if state not in (None, PENDING, DELIVERED, DEAD):
            raise RequestError(f"state is {state!r}; choose {PENDING}, {DELIVERED} or {DEAD}")
        found = self.ledger.callbacks.deliveries(state=state, request_id=request_id, limit=MAX_PAGE)
        return [_delivery_view(item) for item in found]

    def redeliver(self, delivery_id: str, by: str = "") -> dict[str, Any]:
        """Try a delivery again, with another three days.

        Raises:
            NotFoundError: there is none of that id.
        """
        found, now = self.ledger.callbacks.delivery(delivery_id), self.clock()
        if found is None:
            raise NotFoundError("delivery", "list them with GET /v1/deliveries")
        again = replace(found, state=PENDING, attempts=0, created_at=now, next_at=now)
        with self.ledger.write() as tx:
            self.ledger.callbacks.change(tx, again)
            detail = {"delivery": delivery_id}
            self.ledger.audit.append(tx, "redeliver", by, found.request_id, detail, at=now)
        return _delivery_view(again)

    def deliver(self) -> int:
        """Put new events on their way and make the calls that are due; returns how many."""
        self._prune()
        self._queue()
        due, lanes = self.ledger.callbacks.due(self.clock(), AT_ONCE), dict[str, list[Delivery]]()
        for item in due:
            lanes.setdefault(item.callback_id, []).append(item)
        if lanes:
            with ThreadPoolExecutor(min(WORKERS, len(lanes))) as threads:
                list(threads.map(self._try_in_turn, lanes.values()))
        return len(due)

    def _try_in_turn(self, lane: Sequence[Delivery]) -> None:
        """Events of one callback, one after the other."""
        for delivery in lane:
            self._try(delivery)

    @property
    def _kept_for(self) -> timedelta:
        return timedelta(days=self.settings.delivery_days)

    def _prune(self) -> None:
        """Let go of deliveries, and of URLs, that nobody needs any more."""
        now = self.clock()
        if self.pruned_at is None or now - self.pruned_at >= PRUNE_EVERY:
            with self.ledger.write() as tx:
                self.ledger.callbacks.prune(tx, now - self._kept_for)
            self.pruned_at = now

    def _queue(self) -> None:
        now = self.clock()
        for callback in self.ledger.callbacks.with_news():
            events = self.ledger.requests.events(callback.request_id, callback.queued)
            numbers, is_open = [event.seq for event in events], events[-1].state not in CLOSED
            with self.ledger.write() as tx:
                self.ledger.callbacks.queue(tx, callback, numbers, now, is_open=is_open)

    def _try(self, delivery: Delivery) -> None:
        callback = self.ledger.callbacks.get(delivery.callback_id)
        if callback is None:
            outcome = Outcome(None, "no_callback")
        else:
            outcome = self._call(callback, delivery)
        after = next_state(delivery, outcome, self.clock())
        with self.ledger.write() as tx:
            self.ledger.callbacks.change(tx, after)
        extra = {
            "event": "delivery",
            "request_id": delivery.request_id,
            "delivery_id": delivery.delivery_id,
            "state": after.state,
            "code": outcome.error,
        }
        logger.info("a delivery is %s", after.state, extra=extra)

    def _call(self, callback: Callback, delivery: Delivery) -> Outcome:
        secret = self.ledger.callbacks.secret(callback.secret_id)
        if secret is None:
            return Outcome(None, "no_secret")
        body = json.dumps(self._body(delivery), sort_keys=True).encode()
        sent_at = int(self.clock().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "unweave",
            DELIVERY: delivery.delivery_id,
            SIGNATURE: signature(secret, sent_at, body),
        }
        return self.caller.post(callback.url, body, headers)

    def _body(self, delivery: Delivery) -> dict[str, Any]:
        """What ``GET /v1/erasures/{id}`` says now, and the event."""
        found = self.ledger.requests.events(delivery.request_id, delivery.event - 1)
        view = self.view(self.record(delivery.request_id))
        return view | {"event": event_view(found[0])}


def _delivery_view(item: Delivery) -> dict[str, Any]:
    names = ("delivery_id", "callback_id", "request_id", "event", "state", "attempts")
    same = {name: getattr(item, name) for name in (*names, "last_status", "last_error")}
    return same | {"created_at": iso(item.created_at), "next_at": iso(item.next_at)}
