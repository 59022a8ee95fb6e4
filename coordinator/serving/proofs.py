"""What the office shows to whoever does not want to trust it: certificates, keys, audit log."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cluster.errors import NotFoundError
from coordinator.certificates import find_certificate
from coordinator.evidence.chain import GENESIS
from coordinator.evidence.check import check_certificate
from coordinator.evidence.keys import PUBLIC_NAME, public_pem, read_keys
from coordinator.ledger.audit_table import AuditRow
from coordinator.serving.desk import Desk
from coordinator.serving.reading import page_size


class Proofs(Desk):
    """Certificates, the issuer's keys and the audit log."""

    # ---- certificates

    def certificates(self, cursor: str | None = None, limit: int = 50) -> dict[str, Any]:
        """A page of certificates in the order of their issue."""
        size = page_size(limit)
        if cursor is not None and self.ledger.certificates.get(cursor) is None:
            raise NotFoundError("certificate", "use next_cursor of the page before")
        found = self.ledger.certificates.list(limit=size + 1, after=cursor)
        items = [
            {name: getattr(item, name) for name in ("certificate_id", "request_id", "batch_id")}
            for item in found[:size]
        ]
        more = len(found) > size
        return {"items": items, "next_cursor": items[-1]["certificate_id"] if more else None}

    def certificate(self, name: str) -> dict[str, Any]:
        """A certificate by its own id or its request's, with its statement and its signed text.

        Raises:
            NotFoundError: there is none.
        """
        table = self.ledger.certificates
        row = table.get(name) or table.of_request(name)
        if row is None:
            raise NotFoundError("certificate", "a request gets one when it is completed")
        found = find_certificate(self.ledger, row.certificate_id)
        return {
            "certificate_id": row.certificate_id,
            "request_id": row.request_id,
            "batch_id": row.batch_id,
            "statement": dict(found.statement),
            "envelope": row.envelope,
        }

    def acceptance(self, request_id: str) -> str:
        """The signed receipt of a request's acceptance.

        Raises:
            NotFoundError: there is no such request, or none was accepted.
        """
        record = self.record(request_id)
        if record.acceptance is None:
            raise NotFoundError("acceptance receipt", f"the request is {record.state}")
        return record.acceptance

    def verify(self, envelope: str) -> dict[str, Any]:
        """Check any text that claims to be a certificate or an acceptance receipt."""
        return check_certificate(envelope, self._issuer_keys()).to_json()

    def keys(self) -> list[dict[str, str]]:
        """The issuer's public keys, the one in use first; none before the first acceptance."""
        found = self._issuer_keys()
        return [{"key_id": name, "pem": public_pem(key).decode()} for name, key in found.items()]

    def _issuer_keys(self) -> dict[str, Ed25519PublicKey]:
        path = self.system.home / "keys" / PUBLIC_NAME
        return read_keys(path) if path.exists() else {}

    # ---- the audit log

    def audit(
        self, cursor: int | None = None, limit: int = 50, newest_first: bool = False
    ) -> dict[str, Any]:
        """A page of the audit log.

        Args:
            cursor: ``next_cursor`` of the page before.
            limit: at most so many rows.
            newest_first: from the end of the log instead of its beginning.
        """
        size, rows = page_size(limit), self.ledger.audit.rows
        if newest_first:
            end = self.ledger.audit.head()[0] + 1 if cursor is None else cursor
            start = max(end - 1 - size, 0)
            found = [row for row in islice(rows(start), size) if row.seq < end][::-1]
            more = start > 0
        else:
            found = list(islice(rows(cursor or 0), size + 1))
            more, found = len(found) > size, found[:size]
        items = [_row_view(row) for row in found]
        return {"items": items, "next_cursor": items[-1]["seq"] if items and more else None}

    def audit_head(self) -> dict[str, Any]:
        """Number and hash of the last row, and the last signature over the log."""
        seq, last = self.ledger.audit.head()
        heads: Mapping[int, str] = self.ledger.audit.signed_heads()
        newest = max(heads, default=None)
        signed = None if newest is None else {"seq": newest, "envelope": heads[newest]}
        return {
            "log": self.ledger.setting("home_id"),
            "seq": seq,
            "hash": last or GENESIS,
            "signed": signed,
        }


def _row_view(row: AuditRow) -> dict[str, Any]:
    return row.content() | {"hash": row.hash}
