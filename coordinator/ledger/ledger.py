"""Ledger: what was asked, promised, published and proved, in SQL, under one lease.

Every change is made in :meth:`Ledger.write`, which compares the fence of the lease inside its
transaction; reading needs no lease.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from cluster.digest import encode
from cluster.errors import HomeError
from coordinator.ledger.audit_table import AuditTable
from coordinator.ledger.backup_table import BackupTable
from coordinator.ledger.batch_table import BatchTable
from coordinator.ledger.callback_table import CallbackTable
from coordinator.ledger.certificate_table import CertificateTable
from coordinator.ledger.engine import (
    database_url,
    insert_new,
    open_engine,
    reading,
    shown,
    truncate_log,
    writing,
)
from coordinator.ledger.key_table import KeyTable
from coordinator.ledger.lease import TTL_S, Lease
from coordinator.ledger.request_table import CHUNK, DOOMED, RequestTable
from coordinator.ledger.tables import artefacts, counters, generations, settings
from coordinator.ledger.tombstone_table import TombstoneTable
from coordinator.ledger.upgrade import upgrade
from coordinator.ledger.vault import Vault
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import State

logger = logging.getLogger(__name__)

KEY_CHECK = "key_check"
EPOCH = "epoch"
_MONTH = timedelta(days=30)


@dataclass(frozen=True)
class PendingRequest:
    """An accepted request whose records are not forgotten yet."""

    request_id: str
    epoch: int
    payload: Mapping[str, Any]


class Ledger:
    """One home's record of truth.

    Attributes:
        home: folder of the system.
        name: the database in words, without a password.
        vault: keys of what stands in cipher.
        lease: who may write.
        requests: requests, their events and tombstones.
        audit: the audit log.
        certificates: the certificates.
        batches: the batches.
        backups: the backups.
        tombstones: what was erased, for copies and for what arrives again.
        api_keys: who may ask over HTTP.
        callbacks: who is told of what became of a request.
    """

    def __init__(self, database: str | Path, *, home: Path, ttl_s: float = TTL_S) -> None:
        url = database_url(database, home)
        self.home = home
        self.name = shown(url)
        self._engine = open_engine(url)
        try:
            moved = upgrade(self._engine, home)
            self.vault = Vault(home)
            self.lease = Lease(self._engine, home, ttl_s)
            self.requests = RequestTable(self.read, self.vault)
            self.audit = AuditTable(self.read)
            self.certificates = CertificateTable(self.read, self.vault)
            self.batches = BatchTable(self.read, self.vault)
            self.backups = BackupTable(self.read)
            self.tombstones = TombstoneTable(self.read)
            self.api_keys = KeyTable(self.read)
            self.callbacks = CallbackTable(self.read, self.vault)
            if self.setting(KEY_CHECK) != self.vault.check_value():
                raise HomeError(
                    f"{home / 'keys' / 'home.key'} is not the key of the ledger {self.name}; "
                    "restore both from the same backup"
                )
            if moved:
                self.truncate_log()  # a secret may have stood in it
        except BaseException:
            self._engine.dispose()
            raise

    def acquire(self) -> int:
        """Take the lease, and clear what an earlier holder left half done; returns the fence.

        Raises:
            HomeError: another process holds it.
        """
        fence = self.lease.acquire()
        found = self.vault.names()
        with self.read() as tx:
            used = self.requests.used_keys(tx) | self.batches.used_keys(tx)
        self.vault.sweep(found, used)
        self.truncate_log()
        return fence

    def close(self) -> None:
        """Give the lease back and close the database."""
        self.lease.release()
        self._engine.dispose()

    # ---- transactions

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads; needs no lease."""
        return reading(self._engine)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write, under the lease.

        Raises:
            LeaseError: the lease is not, or no longer, ours; nothing is written.
            HomeError: the database is gone, full or locked; nothing is written.
        """
        with writing(self._engine) as tx:
            self.lease.check(tx)
            doomed = tx.info[DOOMED] = set()
            yield tx
        self.vault.destroy(doomed)

    def _within(self, tx: Connection | None) -> AbstractContextManager[Connection]:
        return self.write() if tx is None else nullcontext(tx)

    # ---- settings

    def setting(self, name: str) -> str:
        """A setting's value; the empty string when it was never set."""
        with self.read() as tx:
            query = select(settings.c.value).where(settings.c.name == name)
            return str(tx.execute(query).scalar_one_or_none() or "")

    def set_settings(self, values: Mapping[str, str], tx: Connection | None = None) -> None:
        """Write settings.

        Args:
            values: name -> value.
            tx: a ``ledger.write()`` to be part of; default one of its own.
        """
        with self._within(tx) as own:
            own.execute(delete(settings).where(settings.c.name.in_(list(values))))
            own.execute(insert(settings), [{"name": n, "value": v} for n, v in values.items()])

    # ---- artefacts

    def register(
        self, keys: Iterable[tuple[str, str]], epoch: int, tx: Connection | None = None
    ) -> None:
        """Record the intent to write artefacts; to be called before their first byte."""
        rows = [{"kind": kind, "key": key, "epoch": epoch} for kind, key in keys]
        if rows:
            with self._within(tx) as own:
                insert_new(own, artefacts, rows)

    def registered(self) -> set[tuple[str, str]]:
        """Every artefact that may exist."""
        with self.read() as tx:
            return {(row.kind, row.key) for row in tx.execute(select(artefacts))}

    def unregister(self, keys: Iterable[tuple[str, str]], tx: Connection | None = None) -> None:
        """Forget artefacts whose files were destroyed."""
        gone = list(keys)
        with self._within(tx) as own:
            for start in range(0, len(gone), CHUNK):
                chunk = gone[start : start + CHUNK]
                own.execute(
                    delete(artefacts).where(tuple_(artefacts.c.kind, artefacts.c.key).in_(chunk))
                )

    # ---- epochs

    def epoch(self, tx: Connection | None = None) -> int:
        """Graph epoch: number of accepted changes; read inside ``tx`` where one is given."""
        with self.read() if tx is None else nullcontext(tx) as own:
            return int(own.execute(_EPOCH_QUERY).scalar_one())

    def next_epoch(self, tx: Connection, count: int = 1) -> int:
        """Count accepted changes; returns the epoch of the last of them."""
        row = counters.c.name == EPOCH
        tx.execute(update(counters).where(row).values(value=counters.c.value + count))
        return int(tx.execute(_EPOCH_QUERY).scalar_one())

    # ---- requests as one call each

    def accept(
        self, request_id: str, payload: Mapping[str, Any], marks: Mapping[bytes, str]
    ) -> int:
        """Make an urgent request and its tombstones durable.

        Args:
            request_id: id of the request.
            payload: the records to forget, kept in the vault until completion.
            marks: tombstone -> kind.

        Returns:
            The graph epoch this request makes.
        """
        now = datetime.now(UTC)
        kinds = [kind for kind in ("nodes", "edges", "features", "labels") if payload.get(kind)]
        with self.write() as tx:
            epoch = self.next_epoch(tx)
            record = RequestRecord(
                request_id=request_id,
                kind=kinds[0] if len(kinds) == 1 else "mixed",
                state=State.ACCEPTED,
                regulation="gdpr",
                priority="urgent",
                received_at=now,
                due_at=now + _MONTH,
                cancel_until=now,
                accepted_at=now,
                epoch=epoch,
                records=dict(payload.get("records", {})),
            )
            self.requests.add(tx, [record], {request_id: payload}, {request_id: marks})
        return epoch

    def pending(self) -> list[PendingRequest]:
        """Accepted requests that are not completed, oldest first."""
        found = self.requests.find(state=State.ACCEPTED)
        payloads = self.requests.payloads(record.request_id for record in found)
        pending = [
            PendingRequest(r.request_id, r.epoch, payloads[r.request_id])
            for r in found
            if r.epoch is not None
        ]
        return sorted(pending, key=lambda request: request.epoch)

    def complete(self, receipts: Mapping[str, Mapping[str, Any]]) -> None:
        """Close requests: keep the receipts, destroy the records they named, truncate the log."""
        now = datetime.now(UTC)
        found = [self.requests.get(request_id) for request_id in receipts]
        pairs = [
            (
                r,
                replace(r, state=State.COMPLETED, completed_at=now, receipt=receipts[r.request_id]),
            )
            for r in found
            if r is not None
        ]
        with self.write() as tx:
            self.requests.change_many(tx, pairs, "complete", at=now)
            self.requests.destroy_payloads(tx, receipts)
        self.truncate_log()

    def truncate_log(self) -> None:
        """Move the log into the database and cut it, so that nothing erased stays in it."""
        if not truncate_log(self._engine):
            logger.warning(
                "another process reads %s, so its log was not cut and may hold what was erased, in "
                "cipher; end that reader and open the home again",
                self.name,
                extra={"event": "log_not_truncated"},
            )

    def receipt(self, request_id: str) -> dict[str, Any] | None:
        """Receipt of a completed request."""
        found = self.requests.get(request_id)
        return None if found is None or found.receipt is None else dict(found.receipt)

    def request_states(self) -> dict[str, int]:
        """Number of requests in each state."""
        return self.requests.counts()

    # ---- tombstones

    def mark(self, kind: str, *record: Any) -> bytes:
        """Keyed HMAC of a record; without the home's secret it names nobody."""
        return mark(self.vault.secret, kind, *record)

    def tombstone_kinds(self) -> set[str]:
        """Kinds of records that were ever to be erased here."""
        return self.requests.mark_kinds()

    def erased_by(
        self,
        marks: Sequence[bytes],
        *,
        unlearned_only: bool = False,
        but: Collection[str] = (),
        since: int | None = None,
    ) -> dict[bytes, str]:
        """See :meth:`coordinator.ledger.request_table.RequestTable.erased_by`."""
        find = self.requests.erased_by
        return find(marks, unlearned_only=unlearned_only, but=but, since=since)

    def remove_of(self, tx: Connection, request_id: str) -> None:
        """Take back the tombstones of a request that was cancelled or rejected."""
        self.requests.remove_marks(tx, [request_id])

    # ---- generations

    def publish(self, number: int, body: Mapping[str, Any], tx: Connection | None = None) -> None:
        """Make a generation current, in one step.

        Args:
            number: its number.
            body: what it is.
            tx: a ``ledger.write()`` to be part of; default one of its own.

        Raises:
            HomeError: somebody else published this number meanwhile.
            LeaseError: this process may no longer publish.
        """
        try:
            with self._within(tx) as own:
                own.execute(delete(generations).where(generations.c.number < number))
                row = {"number": number, "body": body, "is_current": True}
                own.execute(insert(generations), row)
        except IntegrityError as error:
            raise HomeError(
                f"generation {number} was published by another process; open the home again"
            ) from error

    def current_generation(self) -> tuple[int, dict[str, Any]] | None:
        """Number and body of the published generation."""
        query = select(generations).where(generations.c.is_current)
        with self.read() as tx:
            row = tx.execute(query).one_or_none()
        return None if row is None else (row.number, dict(row.body))


def mark(secret: bytes, kind: str, *record: Any) -> bytes:
    """HMAC of a record under a home's secret."""
    return hmac.digest(secret, encode((kind, *record)), hashlib.sha256)


_EPOCH_QUERY = select(counters.c.value).where(counters.c.name == EPOCH)
