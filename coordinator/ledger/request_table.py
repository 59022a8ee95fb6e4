"""Requests in SQL: rows, payloads in the vault, events, tombstones."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from cluster.errors import DuplicateError, TransitionError
from coordinator.ledger.engine import insert_new
from coordinator.ledger.tables import dump, events, requests, tombstones
from coordinator.ledger.vault import Vault
from coordinator.requests.record import Event, RequestRecord
from coordinator.requests.states import State

CHUNK = 500  # values in one statement
DOOMED = "doomed_keys"  # where a transaction notes the vault keys to destroy once it is committed
FORGOTTEN = (State.UNLEARNED, State.PURGING, State.COMPLETED)  # live models are without the records
_FIELDS = tuple(item.name for item in fields(RequestRecord))
_COLUMNS = [requests.c[name] for name in _FIELDS]

Read = Callable[[], AbstractContextManager[Connection]]


class RequestTable:
    """The requests of one home. Methods that change something take a ``ledger.write()``."""

    def __init__(self, read: Read, vault: Vault) -> None:
        self._read = read
        self._vault = vault

    # ---- write

    def add(
        self,
        tx: Connection,
        records: Sequence[RequestRecord],
        payloads: Mapping[str, bytes | Mapping[str, Any]],
        marks: Mapping[str, Mapping[bytes, str]],
        *,
        action: str = "accept",
    ) -> None:
        """Add requests with what they ask for; durable once the transaction commits.

        Args:
            tx: a ``ledger.write()``.
            records: the requests.
            payloads: request id -> its records as plain JSON, or as bytes of it.
            marks: request id -> tombstone -> kind.
            action: name of the first event.

        Raises:
            DuplicateError: an idempotency key, or a request id, is there already.
        """
        if not records:
            return
        key = self._vault.new_key() if payloads else None
        rows = [_row_of(record) | self._sealed(key, record, payloads) for record in records]
        try:
            tx.execute(insert(requests), rows)
        except IntegrityError as error:
            raise self._duplicate(records) from error
        first = [_event_row(r, 1, r.received_at, action, r.requested_by, r.reason) for r in records]
        tx.execute(insert(events), first)
        stones = [
            {"mark": mark, "request_id": request_id, "kind": kind}
            for request_id, group in marks.items()
            for mark, kind in group.items()
        ]
        insert_new(tx, tombstones, stones)

    def _sealed(
        self,
        key: str | None,
        record: RequestRecord,
        payloads: Mapping[str, bytes | Mapping[str, Any]],
    ) -> dict[str, Any]:
        payload = payloads.get(record.request_id)
        if key is None or payload is None:
            return {"payload": None, "vault_key": None}
        plain = payload if isinstance(payload, bytes) else dump(payload).encode()
        return {"payload": self._vault.seal(key, record.request_id, plain), "vault_key": key}

    def _duplicate(self, records: Sequence[RequestRecord]) -> DuplicateError:
        keys = sorted({r.idempotency_key for r in records if r.idempotency_key is not None})
        return DuplicateError(
            "a request with one of these ids or idempotency keys is there already, or comes twice: "
            f"{[r.request_id for r in records][:3]}, {keys[:3]}; nothing was added, look it up "
            "first"
        )

    def change(
        self, tx: Connection, before: RequestRecord, after: RequestRecord, event: Event
    ) -> None:
        """Replace a request by its next state, and note the event.

        Args:
            tx: a ``ledger.write()``.
            before: the request as it was read; where a field that changes, or the state, is
                another by now, nothing is changed.
            after: the request as it shall be.
            event: what happened; its number is given here.

        Raises:
            TransitionError: somebody else changed the request meanwhile.
        """
        self._apply(tx, [(before, after)], event.action, event.by, event.detail, event.at)

    def change_many(
        self,
        tx: Connection,
        pairs: Sequence[tuple[RequestRecord, RequestRecord]],
        action: str,
        detail: str = "",
        *,
        by: str = "",
        at: datetime | None = None,
    ) -> None:
        """:meth:`change` for many requests; all of them or none.

        Args:
            tx: a ``ledger.write()``.
            pairs: requests before and after.
            action: name of the event.
            detail: its text.
            by: who did it.
            at: when; now by default.
        """
        self._apply(tx, pairs, action, by, detail, at or datetime.now(UTC))

    def _apply(
        self,
        tx: Connection,
        pairs: Sequence[tuple[RequestRecord, RequestRecord]],
        action: str,
        by: str,
        detail: str,
        at: datetime,
    ) -> None:
        """One statement for all requests whose fields change from and to the same values."""
        ordered = sorted(((_step(*pair), pair) for pair in pairs), key=lambda item: item[0])
        for _, group in groupby(ordered, key=lambda item: item[0]):
            members = [pair for _, pair in group]
            for chunk in _chunks(members):
                self._move(tx, chunk)
        revisions: dict[str, int] = {}
        for chunk in _chunks([after.request_id for _, after in pairs]):
            query = select(requests.c.request_id, requests.c.revision)
            found = tx.execute(query.where(requests.c.request_id.in_(chunk)))
            revisions |= {row.request_id: row.revision for row in found}
        rows = [
            _event_row(after, revisions[after.request_id], at, action, by, detail)
            for _, after in pairs
        ]
        if rows:
            tx.execute(insert(events), rows)

    def _move(self, tx: Connection, chunk: Sequence[tuple[RequestRecord, RequestRecord]]) -> None:
        before, after = chunk[0]
        changed = [name for name in _FIELDS if getattr(before, name) != getattr(after, name)]
        ids = [record.request_id for record, _ in chunk]
        old = [requests.c.state == before.state.value]
        old += [requests.c[name].is_not_distinct_from(_plain(before, name)) for name in changed]
        values = {name: _plain(after, name) for name in changed}
        done = tx.execute(
            update(requests)
            .where(requests.c.request_id.in_(ids), *old)
            .values(values | {"revision": requests.c.revision + 1})
        )
        if done.rowcount != len(ids):
            raise self._conflict(tx, ids, before)

    def _conflict(
        self, tx: Connection, ids: Sequence[str], before: RequestRecord
    ) -> TransitionError:
        query = select(requests.c.request_id, requests.c.state).where(
            requests.c.request_id.in_(ids)
        )
        found = {row.request_id: row.state for row in tx.execute(query)}
        other = [f"{i} is {found.get(i, 'not here')}" for i in ids if found.get(i) != before.state]
        return TransitionError(
            f"a request was changed meanwhile (expected {before.state.value}"
            f"{': ' + ', '.join(other[:5]) if other else ', another field moved'}); "
            "nothing was changed, read it again"
        )

    def destroy_payloads(self, tx: Connection, request_ids: Iterable[str]) -> None:
        """Destroy what requests asked for.

        A vault key is destroyed after the commit, when no request needs it any more; a process that
        dies between the two leaves the key to the next holder of the lease.
        """
        ids = list(request_ids)
        keys: set[str] = set()
        for chunk in _chunks(ids):
            chosen = requests.c.request_id.in_(chunk)
            query = select(requests.c.vault_key).where(chosen, requests.c.vault_key.is_not(None))
            keys |= set(tx.execute(query.distinct()).scalars())
            tx.execute(update(requests).where(chosen).values(payload=None, vault_key=None))
        tx.info.setdefault(DOOMED, set()).update(keys - self.used_keys(tx))

    def replace_payload(self, tx: Connection, request_id: str, payload: Mapping[str, Any]) -> None:
        """Put another payload in place of a request's, under a key of its own."""
        name, plain = self._vault.new_key(), dump(payload).encode()
        self.destroy_payloads(tx, [request_id])
        values = {"payload": self._vault.seal(name, request_id, plain), "vault_key": name}
        tx.execute(update(requests).where(requests.c.request_id == request_id).values(values))

    def used_keys(self, tx: Connection) -> set[str]:
        """Vault keys that a payload still needs."""
        query = select(requests.c.vault_key).where(requests.c.vault_key.is_not(None)).distinct()
        return set(tx.execute(query).scalars())

    def add_marks(self, tx: Connection, request_id: str, marks: Mapping[bytes, str]) -> None:
        """Add the tombstones of a request that became binding after it was added."""
        rows = [{"mark": m, "request_id": request_id, "kind": kind} for m, kind in marks.items()]
        insert_new(tx, tombstones, rows)

    def remove_marks(self, tx: Connection, request_ids: Iterable[str]) -> None:
        """Take back the tombstones of requests that will not happen."""
        for chunk in _chunks(list(request_ids)):
            tx.execute(delete(tombstones).where(tombstones.c.request_id.in_(chunk)))

    # ---- read

    def get(self, request_id: str, tx: Connection | None = None) -> RequestRecord | None:
        """A request, or None; read inside ``tx`` where one is given."""
        query = select(*_COLUMNS).where(requests.c.request_id == request_id)
        rows = self._rows(query, tx)
        return _record_of(rows[0]) if rows else None

    def find(
        self,
        *,
        state: State | Iterable[State] | None = None,
        due_before: datetime | None = None,
        batch_id: str | None = None,
        external_request_id: str | None = None,
        idempotency_key: str | None = None,
        parent_id: str | None = None,
        kind: str | None = None,
        subject_ref: str | None = None,
        limit: int | None = None,
        after: str | None = None,
        parts: bool = True,
        tx: Connection | None = None,
    ) -> list[RequestRecord]:
        """Requests that meet every given condition, in the order of their ids.

        Args:
            state: one state, or any of several.
            due_before: due earlier than this.
            batch_id: in this batch.
            external_request_id: with this name.
            idempotency_key: with this key.
            parent_id: part of this request.
            kind: of this kind.
            subject_ref: about this person, by :func:`coordinator.ask.subject_ref`.
            limit: at most so many.
            after: with an id after this one, to go on where a limit ended.
            parts: whether parts of files count; else their parents stand for them.
            tx: read inside this transaction, so that what follows in it rests on the answer.
        """
        c = requests.c
        wanted: list[ColumnElement[bool]] = []
        if state is not None:
            states = [state] if isinstance(state, State) else list(state)
            wanted.append(c.state.in_([item.value for item in states]))
        if due_before is not None:
            wanted.append(c.due_at < due_before)
        if after is not None:
            wanted.append(c.request_id > after)
        if not parts:
            wanted.append(c.parent_id.is_(None))
        for column, value in (
            (c.batch_id, batch_id),
            (c.external_request_id, external_request_id),
            (c.idempotency_key, idempotency_key),
            (c.parent_id, parent_id),
            (c.kind, kind),
            (c.subject_ref, subject_ref),
        ):
            if value is not None:
                wanted.append(column == value)
        query = select(*_COLUMNS).where(and_(True, *wanted)).order_by(c.request_id).limit(limit)
        return [_record_of(row) for row in self._rows(query, tx)]

    def _rows(self, query: Any, tx: Connection | None = None) -> Sequence[Row[Any]]:
        if tx is not None:
            return tx.execute(query).all()
        with self._read() as own:
            return own.execute(query).all()

    def payload(self, request_id: str) -> dict[str, Any] | None:
        """What a request asks for; None once it is destroyed."""
        return self.payloads([request_id]).get(request_id)

    def payloads(self, request_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Request id -> what it asks for, for those that still have it."""
        found: dict[str, dict[str, Any]] = {}
        c = requests.c
        for chunk in _chunks(list(request_ids)):
            query = select(c.request_id, c.payload, c.vault_key)
            chosen = c.request_id.in_(chunk), c.payload.is_not(None)
            for row in self._rows(query.where(*chosen)):
                plain = self._vault.open(row.vault_key, row.request_id, row.payload)
                found[row.request_id] = dict(json.loads(plain))
        return found

    def events(self, request_id: str, after_seq: int = 0) -> list[Event]:
        """What happened to a request, oldest first."""
        c = events.c
        query = select(events).where(c.request_id == request_id, c.seq > after_seq).order_by(c.seq)
        return [
            Event(r.request_id, r.seq, r.at, State(r.state), r.action, r.by, r.detail)
            for r in self._rows(query)
        ]

    def counts(self) -> dict[str, int]:
        """Number of requests in each state that has any."""
        query = select(requests.c.state, func.count().label("number")).group_by(requests.c.state)
        return {row.state: row.number for row in self._rows(query)}

    def child_counts(self, parent_id: str) -> dict[State, int]:
        """Number of a request's parts in each state that has any."""
        c = requests.c
        query = select(c.state, func.count().label("number")).where(c.parent_id == parent_id)
        return {State(row.state): row.number for row in self._rows(query.group_by(c.state))}

    # ---- tombstones

    def mark_kinds(self) -> set[str]:
        """Kinds of records that were ever to be erased here."""
        return {row.kind for row in self._rows(select(tombstones.c.kind).distinct())}

    def erased_by(
        self,
        marks: Sequence[bytes],
        *,
        unlearned_only: bool = False,
        but: Collection[str] = (),
        since: int | None = None,
    ) -> dict[bytes, str]:
        """Tombstone -> request that came first with it, for those of ``marks`` that exist.

        Args:
            marks: tombstones.
            unlearned_only: count only requests whose records live models are without.
            but: requests that do not count.
            since: graph epoch of the records asked about, where it is not the present one: what
                was let in anew after it does not stand for the records of then.
        """
        c = tombstones.c
        query = select(c.mark, c.request_id).join(
            requests, requests.c.request_id == c.request_id, isouter=not unlearned_only
        )
        if unlearned_only:
            query = query.where(requests.c.state.in_([state.value for state in FORGOTTEN]))
        query = query.where(_stands(since), c.request_id.not_in(list(but)))
        query = query.order_by(requests.c.received_at, c.request_id)
        found: dict[bytes, str] = {}
        for chunk in _chunks(marks):
            for row in self._rows(query.where(c.mark.in_(chunk))):
                found.setdefault(row.mark, row.request_id)
        return found


def _stands(since: int | None) -> ColumnElement[bool]:
    """Whether a tombstone still speaks of the record that bears its id."""
    readmitted = tombstones.c.readmitted
    never = readmitted.is_(None)
    return never if since is None else or_(never, readmitted > since)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _plain(record: RequestRecord, name: str) -> Any:
    """A field as its column takes it."""
    value = getattr(record, name)
    if name == "state":
        return value.value
    return list(value) if name == "shards" else value


def _row_of(record: RequestRecord) -> dict[str, Any]:
    return {name: _plain(record, name) for name in _FIELDS} | {"revision": 1}


def _record_of(row: Row[Any]) -> RequestRecord:
    body = dict(row._mapping)
    body |= {"state": State(row.state), "shards": tuple(row.shards)}
    return RequestRecord(**body)


def _step(before: RequestRecord, after: RequestRecord) -> str:
    """Text that is the same for pairs whose fields change from and to the same values."""
    if before.request_id != after.request_id:
        raise ValueError(f"{before.request_id} cannot become {after.request_id}")
    moved = [name for name in _FIELDS if getattr(before, name) != getattr(after, name)]
    return repr((before.state, [(n, _plain(before, n), _plain(after, n)) for n in moved]))


def _event_row(
    record: RequestRecord, seq: int, at: datetime, action: str, by: str, detail: str
) -> dict[str, Any]:
    return {
        "request_id": record.request_id,
        "seq": seq,
        "at": at,
        "state": record.state.value,
        "action": action,
        "by": by,
        "detail": detail,
    }
