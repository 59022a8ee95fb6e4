"""Backups that are kept by name, with the time they expire; certificates list them as residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, or_, select

from cluster.errors import HomeError
from coordinator.ledger.request_table import Read
from coordinator.ledger.tables import backups


@dataclass(frozen=True)
class Backup:
    """A copy of the home.

    Attributes:
        name: its name.
        path: where it lies.
        made_at: when it was made.
        expires_at: when it will be destroyed; None for a copy without an end.
        epoch: graph epoch it holds.
    """

    name: str
    path: str
    made_at: datetime
    expires_at: datetime | None
    epoch: int


class BackupTable:
    """The backups of one home."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def add(self, tx: Connection, backup: Backup) -> None:
        """Note a backup.

        Raises:
            HomeError: the name is taken.
        """
        if tx.execute(select(backups.c.name).where(backups.c.name == backup.name)).first():
            raise HomeError(f"there is a backup {backup.name!r}; choose another name or remove it")
        tx.execute(insert(backups), vars(backup))

    def list(self, *, expired_at: datetime | None = None) -> Sequence[Backup]:
        """Backups, oldest first.

        Args:
            expired_at: only those whose time is over then.
        """
        query = select(backups).order_by(backups.c.made_at, backups.c.name)
        if expired_at is not None:
            query = query.where(backups.c.expires_at <= expired_at)
        with self._read() as tx:
            return [Backup(**row._mapping) for row in tx.execute(query)]

    def holding(self, epoch: int, at: datetime) -> Sequence[Backup]:
        """Backups that hold the graph from before an epoch and have not expired.

        Args:
            epoch: graph epoch of an erasure.
            at: the time to ask for.
        """
        c = backups.c
        query = select(backups).where(
            c.epoch < epoch, or_(c.expires_at.is_(None), c.expires_at > at)
        )
        with self._read() as tx:
            return [Backup(**row._mapping) for row in tx.execute(query.order_by(c.made_at))]

    def remove(self, tx: Connection, name: str) -> None:
        """Forget a backup whose files were destroyed."""
        tx.execute(delete(backups).where(backups.c.name == name))
