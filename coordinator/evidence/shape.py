"""The shape of a certificate: an in-toto Statement v1 about one erasure request."""

from __future__ import annotations

import re
from typing import Any

from coordinator.evidence.errors import StatementTypeError
from coordinator.evidence.fields import ANY, HEX, HEX32, TIME, Maybe, require

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://unweave.dev/erasure/v1"
SUBJECT_DIGEST = "hmac-sha256"

NOT_CLAIMED = (
    "Not claimed: that nothing about the erased records can be inferred from their neighbours, "
    "from answers given before the erasure, or from copies out of the issuer's reach; and that "
    "the issuer held no other copy than those listed."
)

GONE, CHANGED, UNCHANGED, NEVER = "gone", "changed", "unchanged", "never"

_NUMBER = re.compile(r"-?\d{1,20}")
_STATE = re.compile("recomputed|refit|retained")
_RECORD_STATE = re.compile("|".join((GONE, CHANGED, UNCHANGED, NEVER)))
_SUBMODEL = {"key": HEX32, "weights": Maybe(HEX32)}
_PROOF = {"depth": int, "count": int, "buckets": {str: HEX}, "path": [HEX32]}
_TREE = {"root": HEX32, "proof": _PROOF}

TREES = {
    "before": _TREE,
    "after": _TREE,
    "records": [
        {
            "position": HEX32,
            "before": Maybe(HEX32),
            "after": Maybe(HEX32),
            "state": _RECORD_STATE,
        }
    ],
    "rows": {"removed": int, "added": int, "changed": int},
}

_SHARD = {
    "shard": int,
    "name": str,
    "seed": _NUMBER,
    "old": Maybe(_SUBMODEL),
    "new": _SUBMODEL,
    "previous": Maybe({"certificate": str} | _SUBMODEL),
    "seconds": float,
    "epochs": int,
    "leaf_key": HEX32,
    "new_salt": HEX32,
    "trees": TREES,
}

_PREDICATE = {
    "certificate": str,
    "issuer": {"name": str, "key_id": str},
    "request": {
        "id": str,
        "external_id": Maybe(str),
        "parent_id": Maybe(str),
        "batch_id": Maybe(str),
        "kind": str,
        "subject_ref": str,
        "regulation": str,
        "priority": str,
    },
    "times": {str: TIME},
    "scope": {"records": {str: int}, "unknown": int, "shards": [int]},
    "guarantee": {"level": str, "partition": str, "claim": str},
    "method": {
        "name": str,
        "implementation": str,
        "commit": Maybe(str),
        "config": str,
        "recipe": {str: ANY},
        "seed": _NUMBER,
    },
    "artefacts": [{"name": str, "state": _STATE, "reason": str}],
    "generations": {
        "before": {"number": int, "key": HEX32},
        "after": {
            "number": int,
            "key": HEX32,
            "graph": HEX32,
            "partition": HEX32,
            "aggregator": HEX32,
        },
    },
    "shards": [_SHARD],
    "purged": [{"kind": str, "digest": HEX32, "location": str, "at": TIME}],
    "residuals": [{"kind": str, "where": str, "expires_at": Maybe(TIME), "reason": str}],
    "verification": [{"name": str, "ok": bool, "detail": str}],
    "log": Maybe({"seq": int, "hash": HEX32}),
    "not_claimed": str,
}

_STATEMENT = {
    "_type": str,
    "subject": [{"name": str, "digest": {SUBJECT_DIGEST: HEX32}}],
    "predicateType": str,
    "predicate": _PREDICATE,
}


def require_statement(payload: dict[str, Any]) -> None:
    """Check that a payload has every field of a certificate and no other.

    Raises:
        VerificationError: a leaf of it that names the field.
    """
    for name, wanted in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        found = payload.get(name)
        if found is not None and found != wanted:
            raise StatementTypeError(f"{name} is {found!r}, not {wanted!r}")
    require(payload, _STATEMENT, "statement")
