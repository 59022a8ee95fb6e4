"""The audit log: append-only rows, each hashed together with all rows before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from coordinator.evidence.chain import GENESIS, row_hash
from coordinator.ledger.request_table import Read
from coordinator.ledger.tables import audit, audit_heads
from coordinator.requests.times import to_iso

PAGE = 1000


@dataclass(frozen=True)
class AuditRow:
    """One row of the log.

    Attributes:
        seq: its number, from 1 without gaps.
        at: when, ISO 8601 in UTC with Z.
        action: what was done.
        actor: who did it.
        request_id: the request it was about.
        detail: plain JSON; never an id of a node.
        hash: hash of this row and all before it.
    """

    seq: int
    at: str
    action: str
    actor: str
    request_id: str | None
    detail: Mapping[str, Any]
    hash: str

    def content(self) -> dict[str, Any]:
        """What the hash covers, besides the row before."""
        return _content(
            self.seq, self.at, self.action, self.actor, self.request_id, dict(self.detail)
        )


class AuditTable:
    """The audit log of one home."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def append(
        self,
        tx: Connection,
        action: str,
        actor: str = "",
        request_id: str | None = None,
        detail: Mapping[str, Any] | None = None,
        *,
        at: datetime | None = None,
    ) -> int:
        """Add a row; returns its number.

        Args:
            tx: a ``ledger.write()``; its lock keeps the chain in one line.
            action: what was done.
            actor: who did it.
            request_id: the request it was about.
            detail: plain JSON with numbers below 2**53; never an id of a node.
            at: when; now by default.
        """
        return self.append_many(tx, action, [(actor, request_id, detail or {})], at=at)

    def append_many(
        self,
        tx: Connection,
        action: str,
        rows: Sequence[tuple[str, str | None, Mapping[str, Any]]],
        *,
        at: datetime | None = None,
    ) -> int:
        """Add rows of one action; returns the number of the last.

        Args:
            tx: as in :meth:`append`.
            action: what was done.
            rows: actor, request and detail of each.
            at: when; now by default.
        """
        last, previous = _head(tx)
        time, added = to_iso(at or datetime.now(UTC)), []
        for actor, request_id, detail in rows:
            last += 1
            row = _content(last, time, action, actor, request_id, dict(detail))
            previous = row_hash(previous, row)
            added.append(row | {"hash": previous})
        if added:
            tx.execute(insert(audit), added)
        return last

    def rows(self, after: int = 0) -> Iterator[AuditRow]:
        """Rows with a number above ``after``, in order, read in pages."""
        while True:
            with self._read() as tx:
                query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(PAGE)
                page = [AuditRow(**row._mapping) for row in tx.execute(query)]
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].seq

    def head(self, tx: Connection | None = None) -> tuple[int, str]:
        """Number and hash of the last row; ``(0, GENESIS)`` of an empty log."""
        if tx is not None:
            return _head(tx)
        with self._read() as own:
            return _head(own)

    def add_signed_head(self, tx: Connection, envelope: str) -> int:
        """Keep a signature over the log as it is now; returns the number of the row it covers."""
        seq, _ = _head(tx)
        tx.execute(audit_heads.delete().where(audit_heads.c.seq == seq))
        tx.execute(insert(audit_heads), {"seq": seq, "envelope": envelope})
        return seq

    def signed_heads(self) -> dict[int, str]:
        """Number of the last covered row -> envelope."""
        with self._read() as tx:
            query = select(audit_heads).order_by(audit_heads.c.seq)
            return {row.seq: row.envelope for row in tx.execute(query)}


def _head(tx: Connection) -> tuple[int, str]:
    query = select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
    row = tx.execute(query).one_or_none()
    return (0, GENESIS) if row is None else (row.seq, row.hash)


def _content(
    seq: int, at: str, action: str, actor: str, request_id: str | None, detail: dict[str, Any]
) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": at,
        "action": action,
        "actor": actor,
        "request_id": request_id,
        "detail": detail,
    }
