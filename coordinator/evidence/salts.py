"""What is derived from a certificate's secret: salts, leaf keys, and what is given away of them.

HKDF-SHA-256 (RFC 5869) of the 32-byte secret with the certificate's id as salt and
``unweave/PURPOSE/1`` or ``unweave/PURPOSE/1/SHARD`` as info, 32 bytes. Purposes: ``leaf`` (leaf
key of a shard), ``new`` and ``old`` (salts of what replaced and what was replaced).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.evidence.errors import FieldValueError
from coordinator.evidence.fields import HEX32, Maybe, require

SECRET_BYTES = 32
LEAF, NEW, OLD = "leaf", "new", "old"


def derive(secret: bytes, certificate_id: str, purpose: str, shard: int | None = None) -> bytes:
    """32 bytes for one purpose.

    Raises:
        FieldValueError: the secret has not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise FieldValueError(f"the secret has {len(secret)} bytes, not {SECRET_BYTES}")
    info = f"unweave/{purpose}/1" + ("" if shard is None else f"/{shard}")
    extracted = hmac.digest(certificate_id.encode(), secret, "sha256")
    return hmac.digest(extracted, info.encode() + b"\1", "sha256")


def seal(salt: bytes, kind: str, value: str) -> str:
    """HMAC-SHA-256 (hex) of a key or digest under a salt; ``kind`` keeps uses apart."""
    return hmac.new(salt, kind.encode() + b"\0" + value.encode(), hashlib.sha256).hexdigest()


def commitment(value: bytes) -> str:
    """SHA-256 (hex) of a derived key: says which one it is and gives nothing away."""
    return hashlib.sha256(b"unweave/commitment/1\0" + value).hexdigest()


_DISCLOSURE = {"certificate": str, "shard": int, "leaf_key": HEX32, "new_salt": Maybe(HEX32)}


@dataclass(frozen=True)
class Disclosure:
    """What the requester or an auditor is given for one shard of one certificate.

    Attributes:
        certificate: the certificate's id.
        shard: the shard.
        leaf_key: lets its holder recompute the leaf of a record they know, in this certificate's
            trees of this shard alone.
        new_salt: if given, lets its holder compare the new submodel's key and weights.
    """

    certificate: str
    shard: int
    leaf_key: bytes
    new_salt: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        new_salt = None if self.new_salt is None else self.new_salt.hex()
        return {
            "certificate": self.certificate,
            "shard": self.shard,
            "leaf_key": self.leaf_key.hex(),
            "new_salt": new_salt,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Disclosure:
        """Inverse of :meth:`to_json`.

        Raises:
            VerificationError: a field is missing, unknown or malformed.
        """
        require(data, _DISCLOSURE, "disclosure")
        salt = data["new_salt"]
        return cls(
            data["certificate"],
            data["shard"],
            bytes.fromhex(data["leaf_key"]),
            None if salt is None else bytes.fromhex(salt),
        )


def disclose(
    secret: bytes, certificate_id: str, shard: int, *, new_salt: bool = False
) -> Disclosure:
    """The leaf key of one shard, and on demand the salt of its new key and weights."""
    return Disclosure(
        certificate_id,
        shard,
        derive(secret, certificate_id, LEAF, shard),
        derive(secret, certificate_id, NEW, shard) if new_salt else None,
    )
