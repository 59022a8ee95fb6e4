"""API keys: of each secret the ledger keeps its SHA-256 alone.

A secret is 256 random bits, so a plain digest cannot be searched for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from coordinator.ledger.request_table import Read
from coordinator.ledger.tables import api_keys


@dataclass(frozen=True)
class ApiKey:
    """A key that somebody holds.

    Attributes:
        key_id: its public part.
        digest: SHA-256 of its secret part.
        role: what its holder may do.
        note: what it is for.
        created_by: who made it.
        created_at: when.
        expires_at: when it ends; None for never.
        last_used_at: when it was last seen, to about a minute.
        deleted_at: when it was taken back.
    """

    key_id: str
    digest: bytes = field(repr=False)
    role: str
    note: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    deleted_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it may be used."""
        return self.deleted_at is None and (self.expires_at is None or now < self.expires_at)


class KeyTable:
    """The API keys of one home."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def add(self, tx: Connection, key: ApiKey) -> None:
        """Keep a new key."""
        tx.execute(insert(api_keys), vars(key))

    def get(self, key_id: str) -> ApiKey | None:
        """A key, or None; also one that ended."""
        return next(iter(self._where(api_keys.c.key_id == key_id)), None)

    def list(self) -> Sequence[ApiKey]:
        """All keys, oldest first, those that ended too."""
        return self._where()

    def note_use(self, tx: Connection, key_id: str, at: datetime) -> None:
        """Note when a key was last seen."""
        row = api_keys.c.key_id == key_id
        tx.execute(update(api_keys).where(row).values(last_used_at=at))

    def delete(self, tx: Connection, key_id: str, at: datetime) -> None:
        """Take a key back; its row stays, for the log."""
        row = api_keys.c.key_id == key_id
        tx.execute(update(api_keys).where(row).values(deleted_at=at))

    def _where(self, *wanted: Any) -> Sequence[ApiKey]:
        query = select(api_keys).where(*wanted).order_by(api_keys.c.created_at, api_keys.c.key_id)
        with self._read() as tx:
            return [ApiKey(**row._mapping) for row in tx.execute(query)]
