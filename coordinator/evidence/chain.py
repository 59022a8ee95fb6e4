"""Hash chain of the audit log: every row's hash covers its content and all rows before it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785

GENESIS = "0" * 64


def row_hash(previous: str, row: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the previous row's hash and this row's canonical JSON (RFC 8785).

    Args:
        previous: hash of the row before, 64 hex digits; :data:`GENESIS` before the first.
        row: what the row says, without its own hash.
    """
    return hashlib.sha256(bytes.fromhex(previous) + rfc8785.dumps(dict(row))).hexdigest()
