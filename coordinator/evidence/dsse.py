"""Dead Simple Signing Envelope: canonical JSON, Ed25519, and an opening that forgives nothing.

Source: github.com/secure-systems-lab/dsse, protocol.md and envelope.md (v1). Deviations, all
stricter: exactly one signature, standard base64 only, no further fields, a canonical payload.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coordinator.evidence.canonical import canonical, read_canonical, read_object
from coordinator.evidence.errors import (
    Base64Error,
    FieldValueError,
    PayloadTypeError,
    SignatureError,
    UnknownKeyError,
)
from coordinator.evidence.fields import require
from coordinator.evidence.keys import Signer

IN_TOTO = "application/vnd.in-toto+json"

_ENVELOPE = {"payload": str, "payloadType": str, "signatures": [{"keyid": str, "sig": str}]}


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(statement: Any, signer: Signer, payload_type: str = IN_TOTO) -> str:
    """Sign a JSON value; returns the envelope as canonical JSON text."""
    payload = canonical(statement)
    signature = signer.sign(pae(payload_type, payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": signer.key_id, "sig": base64.b64encode(signature).decode()}],
    }
    return canonical(envelope).decode()


def open_envelope(
    text: str | bytes, keys: Mapping[str, Ed25519PublicKey], payload_type: str = IN_TOTO
) -> tuple[dict[str, Any], str]:
    """Check an envelope and its signature.

    Args:
        text: the envelope.
        keys: the issuer's public keys by key id (:func:`coordinator.evidence.keys.read_keys`).
        payload_type: the only type that is taken.

    Returns:
        The payload and the id of the key that signed it.

    Raises:
        VerificationError: a leaf of it for every way an envelope can be wrong.
    """
    envelope = read_object(text, "the envelope")
    require(envelope, _ENVELOPE, "envelope")
    if envelope["payloadType"] != payload_type:
        raise PayloadTypeError(f"payloadType is {envelope['payloadType']!r}, not {payload_type!r}")
    if len(envelope["signatures"]) != 1:
        raise FieldValueError(f"envelope has {len(envelope['signatures'])} signatures, not one")
    payload = _decode(envelope["payload"], "payload")
    key_id = envelope["signatures"][0]["keyid"]
    signature = _decode(envelope["signatures"][0]["sig"], "signatures[0].sig")
    if key_id not in keys:
        raise UnknownKeyError(
            f"signed by key {key_id!r}; the given file holds {sorted(keys)}: ask the issuer for "
            "the public keys of that time"
        )
    try:
        keys[key_id].verify(signature, pae(payload_type, payload))
    except InvalidSignature:
        raise SignatureError(
            f"the signature is not one of this payload by key {key_id}: one of them was altered"
        ) from None
    return read_canonical(payload, "the payload"), key_id


def _decode(text: str, where: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Base64Error(f"{where} is not base64: {error}") from None
    if base64.b64encode(raw).decode() != text:
        raise Base64Error(f"{where} is not base64 as it is written by the standard")
    return raw
