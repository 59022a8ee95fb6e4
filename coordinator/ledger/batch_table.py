"""Batches: which requests run together, where they stand, and what evidence they gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from coordinator.ledger.request_table import Read
from coordinator.ledger.tables import batches


@dataclass(frozen=True)
class Batch:
    """Requests that are done as one.

    Attributes:
        batch_id: its id.
        state: where it stands.
        shards: shards it retrains.
        num_requests: number of requests.
        started_at: when it began.
        fence: fence of the coordinator that began it.
        evidence: what its certificates will need; None once it is destroyed.
    """

    batch_id: str
    state: str
    shards: tuple[int, ...]
    num_requests: int
    started_at: datetime
    fence: int
    evidence: Mapping[str, Any] | None = None


class BatchTable:
    """The batches of one home."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def add(self, tx: Connection, batch: Batch) -> None:
        """Keep a new batch."""
        names = ("batch_id", "state", "num_requests", "started_at", "fence", "evidence")
        row = {name: getattr(batch, name) for name in names}
        tx.execute(insert(batches), row | {"shards": list(batch.shards)})

    def change(
        self,
        tx: Connection,
        batch_id: str,
        state: str,
        *,
        evidence: Mapping[str, Any] | None = None,
        shards: Sequence[int] | None = None,
    ) -> None:
        """Move a batch on.

        Args:
            tx: a ``ledger.write()``.
            batch_id: the batch.
            state: its new state.
            evidence: what to keep from now on; None keeps what is there.
            shards: the shards it turned out to retrain; None keeps what is there.
        """
        values: dict[str, Any] = {"state": state}
        if evidence is not None:
            values["evidence"] = evidence
        if shards is not None:
            values["shards"] = list(shards)
        tx.execute(update(batches).where(batches.c.batch_id == batch_id).values(values))

    def destroy_evidence(self, tx: Connection, batch_id: str) -> None:
        """Destroy what was gathered for the certificates."""
        tx.execute(update(batches).where(batches.c.batch_id == batch_id).values(evidence=None))

    def get(self, batch_id: str) -> Batch | None:
        """A batch, or None."""
        query = select(batches).where(batches.c.batch_id == batch_id)
        return next(iter(self._rows(query)), None)

    def list(self, *, state: str | None = None) -> Sequence[Batch]:
        """Batches, oldest first.

        Args:
            state: only those in this state.
        """
        query = select(batches).order_by(batches.c.started_at, batches.c.batch_id)
        return self._rows(query if state is None else query.where(batches.c.state == state))

    def _rows(self, query: Any) -> Sequence[Batch]:
        with self._read() as tx:
            return [
                Batch(**dict(row._mapping) | {"shards": tuple(row.shards)})
                for row in tx.execute(query)
            ]
