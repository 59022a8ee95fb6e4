"""Signs what is accepted, in the transaction that accepts it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coordinator.certify import open_signer
from coordinator.engine import Engine
from coordinator.evidence.acceptance import AcceptanceInput, sign_acceptance
from coordinator.evidence.keys import Signer
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import State


@dataclass(frozen=True)
class Clerk:
    """Writes acceptance receipts.

    Attributes:
        issuer: in whose name.
        signer: with which key.
    """

    issuer: str
    signer: Signer

    @classmethod
    def of(cls, engine: Engine) -> Clerk:
        """A home's; makes its signing key where there is none, so not inside a transaction."""
        return cls(engine.issuer, open_signer(engine))

    def signed(self, record: RequestRecord) -> RequestRecord:
        """The same request with its receipt, where it is accepted now and was not before."""
        if record.state is not State.ACCEPTED or record.acceptance is not None:
            return record
        facts = AcceptanceInput(
            self.issuer,
            record.request_id,
            record.kind,
            record.regulation,
            record.received_at,
            record.accepted_at or record.received_at,
            record.due_at,
            record.epoch,
            record.records,
            record.unknown,
            record.body_digest,
        )
        return replace(record, acceptance=sign_acceptance(facts, self.signer))
