"""Callbacks: who is told of a request's events, what was delivered, and what is to be tried again.

URLs and signing secrets are sealed under the home's key.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from coordinator.ledger.engine import insert_new
from coordinator.ledger.request_table import Read
from coordinator.ledger.tables import callbacks, deliveries, events, webhook_secrets
from coordinator.ledger.vault import Vault

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"


@dataclass(frozen=True)
class Callback:
    """Who is told.

    Attributes:
        callback_id: its id; the same for the same request and URL.
        request_id: the request it is about.
        host: of the URL.
        url: where to.
        secret_id: the secret that signs.
        queued: number of the last event with a delivery.
        is_open: whether more events may come.
    """

    callback_id: str
    request_id: str
    host: str
    url: str = field(repr=False)
    secret_id: str
    queued: int = 0
    is_open: bool = True


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one callback.

    Attributes:
        delivery_id: its id, also in the header, so that a receiver knows a repeat.
        callback_id: to whom.
        request_id: about which request.
        event: number of the event within the request.
        state: pending, delivered or dead.
        attempts: how often it was tried.
        created_at: since when.
        next_at: when it is tried next.
        last_status: HTTP status of the last try; None where there was no answer.
        last_error: in a word, why the last try failed.
    """

    delivery_id: str
    callback_id: str
    request_id: str
    event: int
    state: str
    attempts: int
    created_at: datetime
    next_at: datetime
    last_status: int | None = None
    last_error: str = ""


@dataclass(frozen=True)
class WebhookSecret:
    """A secret that signs callbacks; the secret itself is read by :meth:`CallbackTable.secret`."""

    secret_id: str
    note: str
    created_at: datetime
    deleted_at: datetime | None


class CallbackTable:
    """The callbacks of one home, their secrets and deliveries."""

    def __init__(self, read: Read, vault: Vault) -> None:
        self._read, self._vault = read, vault

    # ---- secrets

    def add_secret(
        self, tx: Connection, secret_id: str, secret: str, note: str, at: datetime
    ) -> None:
        """Keep a new signing secret."""
        sealed = self._vault.wrap(secret_id, secret.encode())
        row = {"secret_id": secret_id, "sealed": sealed, "note": note, "created_at": at}
        tx.execute(insert(webhook_secrets), row)

    def secret(self, secret_id: str) -> bytes | None:
        """A signing secret; None where there is none, or it was taken back."""
        c = webhook_secrets.c
        query = select(c.sealed).where(c.secret_id == secret_id, c.deleted_at.is_(None))
        with self._read() as tx:
            sealed = tx.execute(query).scalar_one_or_none()
        return None if sealed is None else self._vault.unwrap(secret_id, sealed)

    def secrets(self) -> Sequence[WebhookSecret]:
        """All signing secrets, oldest first, without what they are."""
        c = webhook_secrets.c
        query = select(c.secret_id, c.note, c.created_at, c.deleted_at).order_by(c.created_at)
        with self._read() as tx:
            return [WebhookSecret(**row._mapping) for row in tx.execute(query)]

    def delete_secret(self, tx: Connection, secret_id: str, at: datetime) -> None:
        """Take a signing secret back, and destroy it."""
        row = webhook_secrets.c.secret_id == secret_id
        tx.execute(update(webhook_secrets).where(row).values(deleted_at=at, sealed=b""))

    # ---- callbacks

    def add(self, tx: Connection, found: Sequence[Callback]) -> None:
        """Keep callbacks; those that are there already stay as they are."""
        rows = []
        for item in found:
            row = dict(vars(item))
            row["sealed"] = self._vault.wrap(item.callback_id, row.pop("url").encode())
            rows.append(row)
        insert_new(tx, callbacks, rows)

    def of_requests(self, request_ids: Sequence[str]) -> Sequence[Callback]:
        """Callbacks of some requests."""
        return self._callbacks(callbacks.c.request_id.in_(list(request_ids)))

    def with_news(self) -> Sequence[Callback]:
        """Callbacks whose request has events without a delivery."""
        c, e = callbacks.c, events.c
        newer = select(e.seq).where(e.request_id == c.request_id, e.seq > c.queued)
        return self._callbacks(c.is_open, newer.exists())

    def get(self, callback_id: str) -> Callback | None:
        """A callback, or None."""
        return next(iter(self._callbacks(callbacks.c.callback_id == callback_id)), None)

    def _callbacks(self, *wanted: Any) -> Sequence[Callback]:
        query = select(callbacks).where(*wanted).order_by(callbacks.c.request_id)
        with self._read() as tx:
            rows = [dict(row._mapping) for row in tx.execute(query)]
        for row in rows:
            row["url"] = self._vault.unwrap(row["callback_id"], row.pop("sealed")).decode()
        return [Callback(**row) for row in rows]

    # ---- deliveries

    def queue(
        self,
        tx: Connection,
        callback: Callback,
        events: Sequence[int],
        at: datetime,
        *,
        is_open: bool,
    ) -> None:
        """Put events on their way to a callback.

        Args:
            tx: a ``ledger.write()``.
            callback: to whom.
            events: numbers of the events, ascending.
            at: when.
            is_open: whether more may come.
        """
        rows = [
            {
                "delivery_id": f"dlv_{secrets.token_hex(13)}",
                "callback_id": callback.callback_id,
                "request_id": callback.request_id,
                "event": event,
                "state": PENDING,
                "attempts": 0,
                "created_at": at,
                "next_at": at,
                "last_error": "",
            }
            for event in events
        ]
        if rows:
            tx.execute(insert(deliveries), rows)
        values = {"queued": max([callback.queued, *events]), "is_open": is_open}
        row = callbacks.c.callback_id == callback.callback_id
        tx.execute(update(callbacks).where(row).values(values))

    def due(self, now: datetime, limit: int) -> Sequence[Delivery]:
        """Deliveries to be tried, oldest first, ``limit`` at most."""
        c = deliveries.c
        return self._deliveries(c.state == PENDING, c.next_at <= now, limit=limit)

    def deliveries(
        self, *, state: str | None = None, request_id: str | None = None, limit: int | None = None
    ) -> Sequence[Delivery]:
        """Deliveries, oldest first.

        Args:
            state: only those in this state.
            request_id: only those about this request.
            limit: at most so many.
        """
        c = deliveries.c
        wanted = [c.state == state] if state is not None else []
        wanted += [c.request_id == request_id] if request_id is not None else []
        return self._deliveries(*wanted, limit=limit)

    def counts(self) -> dict[str, int]:
        """Number of deliveries in each state that has any."""
        query = select(deliveries.c.state, func.count().label("number"))
        with self._read() as tx:
            return {row.state: row.number for row in tx.execute(query.group_by(deliveries.c.state))}

    def delivery(self, delivery_id: str) -> Delivery | None:
        """A delivery, or None."""
        return next(iter(self._deliveries(deliveries.c.delivery_id == delivery_id)), None)

    def change(self, tx: Connection, delivery: Delivery) -> None:
        """Replace a delivery by what became of it."""
        names = ("state", "attempts", "created_at", "next_at", "last_status", "last_error")
        row = deliveries.c.delivery_id == delivery.delivery_id
        values = {name: getattr(delivery, name) for name in names}
        tx.execute(update(deliveries).where(row).values(values))

    def prune(self, tx: Connection, before: datetime) -> None:
        """Destroy what was delivered or given up, and callbacks that have nothing left to tell.

        Args:
            tx: a ``ledger.write()``.
            before: deliveries that were made later stay, and so does what is still to be tried.
        """
        d, c = deliveries.c, callbacks.c
        tx.execute(delete(deliveries).where(d.state != PENDING, d.created_at < before))
        left = select(d.delivery_id).where(d.callback_id == c.callback_id)
        tx.execute(delete(callbacks).where(c.is_open.is_(False), ~left.exists()))

    def _deliveries(self, *wanted: Any, limit: int | None = None) -> Sequence[Delivery]:
        c = deliveries.c
        query = select(deliveries).where(*wanted).order_by(c.created_at, c.request_id, c.event)
        with self._read() as tx:
            return [Delivery(**row._mapping) for row in tx.execute(query.limit(limit))]
