"""Acceptance receipts: signed proof that a request was taken, when, and by when it is due.

A DSSE envelope over canonical JSON, as certificates are, of another payload type. It names nobody:
what was asked stands in it as a keyed HMAC, which only the issuer can compute, and as counts. It is
made once, at acceptance, so an extended deadline or a rotated key does not change it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cluster.errors import VerificationError
from coordinator.evidence.canonical import read_object
from coordinator.evidence.dsse import open_envelope, sign
from coordinator.evidence.errors import FieldValueError
from coordinator.evidence.fields import HEX32, TIME, Maybe, require
from coordinator.evidence.keys import Signer
from coordinator.evidence.statement import time_text

ACCEPTANCE_TYPE: Final = "application/vnd.unweave.acceptance+json"
_SHAPE: Final = {
    "issuer": {"name": str, "key_id": str},
    "request": str,
    "kind": str,
    "regulation": str,
    "received_at": TIME,
    "accepted_at": TIME,
    "due_at": TIME,
    "epoch": Maybe(int),
    "records": {str: int},
    "unknown": int,
    "body": HEX32,
}


@dataclass(frozen=True)
class AcceptanceInput:
    """What an acceptance receipt says.

    Attributes:
        issuer: who accepts.
        request_id: the request.
        kind: what it names.
        regulation: profile of its clock.
        received_at: when its clock started.
        accepted_at: when its records vanished from serving.
        due_at: the deadline as it was then.
        epoch: graph epoch it was accepted at; None of a file, whose parts have one each.
        records: kind -> number of records that go, as planned then.
        unknown: what it named that was not here.
        body: keyed HMAC of what was asked, in hex.
    """

    issuer: str
    request_id: str
    kind: str
    regulation: str
    received_at: datetime
    accepted_at: datetime
    due_at: datetime
    epoch: int | None
    records: Mapping[str, int]
    unknown: int
    body: str


def sign_acceptance(facts: AcceptanceInput, signer: Signer) -> str:
    """The envelope; the same facts and key always give the same bytes (Ed25519, RFC 8032)."""
    statement = {
        "issuer": {"name": facts.issuer, "key_id": signer.key_id},
        "request": facts.request_id,
        "kind": facts.kind,
        "regulation": facts.regulation,
        "received_at": time_text(facts.received_at),
        "accepted_at": time_text(facts.accepted_at),
        "due_at": time_text(facts.due_at),
        "epoch": facts.epoch,
        "records": {kind: int(count) for kind, count in facts.records.items()},
        "unknown": facts.unknown,
        "body": facts.body,
    }
    return sign(statement, signer, ACCEPTANCE_TYPE)


def is_acceptance(text: str | bytes) -> bool:
    """Whether some text says that it is such an envelope; nothing of it is checked."""
    try:
        return read_object(text, "the envelope").get("payloadType") == ACCEPTANCE_TYPE
    except VerificationError:
        return False


def open_acceptance(text: str | bytes, keys: Mapping[str, Ed25519PublicKey]) -> dict[str, Any]:
    """Check signature and fields of a receipt; returns what it says.

    Raises:
        VerificationError: a leaf of it for every way a receipt can be wrong.
    """
    statement, key_id = open_envelope(text, keys, ACCEPTANCE_TYPE)
    require(statement, _SHAPE, "receipt")
    if statement["issuer"]["key_id"] != key_id:
        raise FieldValueError(
            f"issuer.key_id is {statement['issuer']['key_id']!r}, but key {key_id!r} signed"
        )
    return statement


def brief(text: str) -> dict[str, str]:
    """Digest of what a receipt of ours says, its signature, and the key it was signed with.

    Returns:
        ``digest``: SHA-256 of the payload; ``signature``: Ed25519 over its DSSE pre-authentication
        encoding, in base64; ``key_id``.
    """
    envelope = read_object(text, "the envelope")
    (signature,) = envelope["signatures"]
    payload = base64.b64decode(envelope["payload"])
    return {
        "digest": f"sha256:{hashlib.sha256(payload).hexdigest()}",
        "signature": f"ed25519:{signature['sig']}",
        "key_id": signature["keyid"],
    }


def describe_acceptance(statement: Mapping[str, Any]) -> str:
    """A receipt for people."""
    return "\n".join(_lines(statement))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    records = ", ".join(f"{count} {kind}" for kind, count in facts["records"].items() if count)
    yield f"Acceptance of request {facts['request']} ({facts['kind']}, {facts['regulation']})"
    yield f"  by {facts['issuer']['name']}, key {facts['issuer']['key_id']}"
    yield f"  received {facts['received_at']}, accepted {facts['accepted_at']}"
    yield f"  due {facts['due_at']}"
    yield f"  goes: {records or 'nothing held'}; not here: {facts['unknown']}"
    yield f"  what was asked, as a keyed digest: {facts['body']}"
