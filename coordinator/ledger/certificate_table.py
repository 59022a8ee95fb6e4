"""Certificates as they were issued, and which of them speaks last of a shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select

from coordinator.ledger.request_table import Read
from coordinator.ledger.tables import certificate_shards, certificates
from coordinator.ledger.vault import Vault


@dataclass(frozen=True)
class Certificate:
    """One certificate.

    Attributes:
        certificate_id: its id.
        request_id: the request it is about.
        batch_id: the batch that did it.
        envelope: the signed text.
        secret: leaf key, disclosed to requester or auditor on demand.
    """

    certificate_id: str
    request_id: str
    batch_id: str | None
    envelope: str
    secret: bytes


class CertificateTable:
    """The certificates of one home; leaf keys are sealed under the home's key."""

    def __init__(self, read: Read, vault: Vault) -> None:
        self._read = read
        self._vault = vault

    def add(
        self,
        tx: Connection,
        certificate_id: str,
        request_id: str,
        batch_id: str | None,
        envelope: str,
        secret: bytes,
        *,
        shards: Iterable[int] = (),
    ) -> None:
        """Keep a certificate.

        Args:
            tx: a ``ledger.write()``.
            certificate_id: its id.
            request_id: the request it is about.
            batch_id: the batch that did it.
            envelope: the signed text.
            secret: its leaf key.
            shards: shards that it speaks of.
        """
        last = tx.execute(select(func.max(certificates.c.number))).scalar() or 0
        row = {
            "certificate_id": certificate_id,
            "number": last + 1,
            "request_id": request_id,
            "batch_id": batch_id,
            "envelope": envelope,
            "secret": self._vault.wrap(certificate_id, secret),
        }
        tx.execute(insert(certificates), row)
        names = {"number": last + 1, "certificate_id": certificate_id}
        rows = [names | {"shard": shard} for shard in sorted(set(shards))]
        if rows:
            tx.execute(insert(certificate_shards), rows)

    def get(self, certificate_id: str) -> Certificate | None:
        """A certificate, or None."""
        return next(iter(self._where(certificates.c.certificate_id == certificate_id)), None)

    def of_request(self, request_id: str) -> Certificate | None:
        """The last certificate of a request, or None."""
        found = self._where(certificates.c.request_id == request_id)
        return found[-1] if found else None

    def list(self, *, limit: int | None = None, after: str | None = None) -> Sequence[Certificate]:
        """Certificates in the order of their issue.

        Args:
            limit: at most so many.
            after: those issued after this one.
        """
        c = certificates.c
        wanted: list[ColumnElement[bool]] = []
        if after is not None:
            number = select(c.number).where(c.certificate_id == after).scalar_subquery()
            wanted.append(c.number > number)
        return self._where(*wanted, limit=limit)

    def latest_of_shard(
        self, shard: int, *, before: str | None = None, tx: Connection | None = None
    ) -> str | None:
        """Id of the last certificate that speaks of a shard, or None.

        Args:
            shard: the shard.
            before: only certificates issued before this one.
            tx: read inside this transaction.
        """
        c = certificate_shards.c
        query = select(c.certificate_id).where(c.shard == shard).order_by(c.number.desc()).limit(1)
        if before is not None:
            issued = certificates.c
            number = select(issued.number).where(issued.certificate_id == before)
            query = query.where(c.number < number.scalar_subquery())
        if tx is not None:
            return tx.execute(query).scalar_one_or_none()
        with self._read() as own:
            return own.execute(query).scalar_one_or_none()

    def _where(
        self, *wanted: ColumnElement[bool], limit: int | None = None
    ) -> Sequence[Certificate]:
        query = select(certificates).where(*wanted).order_by(certificates.c.number).limit(limit)
        with self._read() as tx:
            return [self._certificate(row) for row in tx.execute(query)]

    def _certificate(self, row: Row[Any]) -> Certificate:
        secret = self._vault.unwrap(row.certificate_id, row.secret)
        return Certificate(row.certificate_id, row.request_id, row.batch_id, row.envelope, secret)
