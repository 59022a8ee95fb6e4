"""Batches: which requests run together, where they stand, and what evidence they gathered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from coordinator.ledger.request_table import DOOMED, Read
from coordinator.ledger.tables import batches, dump
from coordinator.ledger.vault import Vault


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
        evidence: what its certificates will need; None in a list, and once it is destroyed.
    """

    batch_id: str
    state: str
    shards: tuple[int, ...]
    num_requests: int
    started_at: datetime
    fence: int
    evidence: Mapping[str, Any] | None = None


class BatchTable:
    """The batches of one home; evidence stands in cipher, under a key that goes with it."""

    def __init__(self, read: Read, vault: Vault) -> None:
        self._read, self._vault = read, vault

    def add(self, tx: Connection, batch: Batch) -> None:
        """Keep a new batch."""
        names = ("batch_id", "state", "num_requests", "started_at", "fence")
        row = {name: getattr(batch, name) for name in names}
        tx.execute(insert(batches), row | {"shards": list(batch.shards)})
        if batch.evidence is not None:
            self.change(tx, batch.batch_id, batch.state, evidence=batch.evidence)

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
            self.destroy_evidence(tx, batch_id)
            values["evidence"] = self._sealed(batch_id, evidence)
        if shards is not None:
            values["shards"] = list(shards)
        tx.execute(update(batches).where(batches.c.batch_id == batch_id).values(values))

    def destroy_evidence(self, tx: Connection, batch_id: str) -> None:
        """Destroy what was gathered for the certificates; its key goes after the commit."""
        query = select(batches.c.evidence).where(batches.c.batch_id == batch_id)
        sealed = tx.execute(query).scalar_one_or_none()
        if sealed is not None:
            tx.info.setdefault(DOOMED, set()).add(sealed["key"])
        tx.execute(update(batches).where(batches.c.batch_id == batch_id).values(evidence=None))

    def used_keys(self, tx: Connection) -> set[str]:
        """Vault keys that evidence still needs."""
        query = select(batches.c.evidence).where(batches.c.evidence.is_not(None))
        return {sealed["key"] for sealed in tx.execute(query).scalars() if sealed is not None}

    def _sealed(self, batch_id: str, evidence: Mapping[str, Any]) -> dict[str, str]:
        key = self._vault.new_key()
        return {
            "key": key,
            "cipher": self._vault.seal(key, batch_id, dump(evidence).encode()).hex(),
        }

    def _opened(self, batch_id: str, sealed: Mapping[str, str] | None) -> Any:
        if sealed is None:
            return None
        cipher = bytes.fromhex(sealed["cipher"])
        return json.loads(self._vault.open(sealed["key"], batch_id, cipher))

    def get(self, batch_id: str) -> Batch | None:
        """A batch with its evidence, or None; for whoever works on it, since its key may go."""
        query = select(batches).where(batches.c.batch_id == batch_id)
        with self._read() as tx:
            row = tx.execute(query).one_or_none()
        if row is None:
            return None
        return replace(_batch(row), evidence=self._opened(batch_id, row.evidence))

    def list(self, *, state: str | None = None) -> Sequence[Batch]:
        """Batches without their evidence, oldest first.

        Args:
            state: only those in this state.
        """
        query = select(batches).order_by(batches.c.started_at, batches.c.batch_id)
        with self._read() as tx:
            rows = tx.execute(query if state is None else query.where(batches.c.state == state))
            return [_batch(row) for row in rows]


def _batch(row: Any) -> Batch:
    found = dict(row._mapping)
    return Batch(**found | {"shards": tuple(found["shards"]), "evidence": None})
