"""Build a certificate's statement from plain values.

No id of a record enters it: subjects by the request's keyed reference, keys and digests as HMACs
under salts of the certificate's secret, rows as keyed leaves. Source: in-toto Attestation
Framework, Statement v1. Deviation: subject digests are HMACs (``hmac-sha256``), not plain hashes,
since a plain key would let whoever guesses a record test the guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from coordinator.evidence.facts import (
    CertificateInput,
    GenerationFacts,
    Purged,
    Residual,
    ShardEvidence,
    Submodel,
)
from coordinator.evidence.keys import Signer
from coordinator.evidence.merkle import KeyedTree, Moves, position_of
from coordinator.evidence.salts import LEAF, NEW, OLD, commitment, derive, seal
from coordinator.evidence.shape import (
    CHANGED,
    GONE,
    NEVER,
    NOT_CLAIMED,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    SUBJECT_DIGEST,
    UNCHANGED,
    require_statement,
)

METHOD = "sharded exact retraining"


def prove_erasure(
    leaf_key: bytes,
    before: Mapping[bytes, bytes],
    after: Mapping[bytes, bytes],
    names: Iterable[bytes],
) -> dict[str, Any]:
    """Show what happened to some names between two contents of a shard.

    Args:
        leaf_key: ``derive(secret, certificate_id, LEAF, shard)``.
        before: name digest -> row digest of the old content (:func:`leaves.leaves_of`).
        after: the same of the new content.
        names: name digests of the nodes that the request named, or whose edge, feature or label
            it named.

    Returns:
        Roots, proofs and leaf values as JSON, for :class:`ShardEvidence`.
    """
    wanted = sorted(set(names))
    old = KeyedTree(leaf_key, before)
    moves = Moves.between(before, after)
    new = old.moved(after, moves)
    trees: dict[str, Any] = {}
    proofs = {}
    for side, tree in (("before", old), ("after", new)):
        proofs[side] = tree.prove(wanted)
        trees[side] = {"root": tree.root.hex(), "proof": proofs[side].to_json()}
    records = []
    for place in sorted(position_of(leaf_key, name) for name in wanted):
        values = proofs["before"].find(place), proofs["after"].find(place)
        texts = [None if value is None else value.hex() for value in values]
        state = state_of(*texts)
        records.append(
            {"position": place.hex(), "before": texts[0], "after": texts[1], "state": state}
        )
    rows = {
        "removed": len(moves.removed),
        "added": len(moves.put) - moves.changed,
        "changed": moves.changed,
    }
    return trees | {"records": records, "rows": rows}


def state_of(before: str | None, after: str | None) -> str:
    """What two leaf values say of a record."""
    if after is None:
        return NEVER if before is None else GONE
    return UNCHANGED if before == after else CHANGED


def build(facts: CertificateInput, signer: Signer) -> dict[str, Any]:
    """The in-toto Statement to sign with :func:`coordinator.evidence.dsse.sign`.

    Raises:
        VerificationError: a value does not have its shape.
    """
    new = derive(facts.secret, facts.certificate_id, NEW)
    old = derive(facts.secret, facts.certificate_id, OLD)
    shards = [_shard(facts, item) for item in sorted(facts.shards, key=lambda item: item.shard)]
    predicate = {
        "certificate": facts.certificate_id,
        "issuer": {"name": facts.issuer, "key_id": signer.key_id},
        "request": vars(facts.request),
        "times": {phase: time_text(at) for phase, at in facts.times.items()},
        "scope": {
            "records": dict(facts.records),
            "unknown": facts.unknown,
            "shards": [item["shard"] for item in shards],
        },
        "guarantee": dict(zip(("level", "partition", "claim"), facts.guarantee, strict=True)),
        "method": {"name": METHOD} | vars(facts.method) | {"seed": str(facts.method.seed)},
        "artefacts": [_row(("name", "state", "reason"), item) for item in facts.artefacts],
        "generations": {
            "before": {
                "number": facts.before.number,
                "key": seal(old, "generation", facts.before.key),
            },
            "after": _generation(new, facts.after),
        },
        "shards": shards,
        "purged": [_purged(old, item) for item in facts.purged],
        "residuals": [_residual(item) for item in facts.residuals],
        "verification": [_row(("name", "ok", "detail"), item) for item in facts.verification],
        "log": None if facts.log is None else _row(("seq", "hash"), facts.log),
        "not_claimed": NOT_CLAIMED,
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": subjects_of(predicate),
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    require_statement(statement)
    return statement


def subjects_of(predicate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The new generation, and the new submodel of every shard."""
    after = predicate["generations"]["after"]
    subjects = [_subject(f"generation-{after['number']}", after["key"])]
    for item in predicate["shards"]:
        subjects.append(
            _subject(f"shard-{item['shard']}", item["new"]["weights"] or item["new"]["key"])
        )
    return subjects


def time_text(at: datetime) -> str:
    """An aware time as ISO 8601 in UTC with a Z.

    Raises:
        ValueError: the time is naive.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone; evidence takes aware times only")
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def seal_submodel(salt: bytes, submodel: Submodel) -> dict[str, Any]:
    """A submodel's key and weights digest under a salt."""
    weights = submodel.weights
    return {
        "key": seal(salt, "submodel", submodel.key),
        "weights": None if weights is None else seal(salt, "weights", weights),
    }


def _subject(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "digest": {SUBJECT_DIGEST: value}}


def _row(names: tuple[str, ...], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _shard(facts: CertificateInput, item: ShardEvidence) -> dict[str, Any]:
    def salt(purpose: str) -> bytes:
        return derive(facts.secret, facts.certificate_id, purpose, item.shard)

    previous = None
    if item.previous is not None:
        certificate, entry = item.previous
        previous = {"certificate": certificate} | dict(entry["new"])
    return {
        "shard": item.shard,
        "name": item.name,
        "seed": str(item.seed),
        "old": None if item.old is None else seal_submodel(salt(OLD), item.old),
        "new": seal_submodel(salt(NEW), item.new),
        "previous": previous,
        "seconds": float(item.seconds),
        "epochs": item.epochs,
        "leaf_key": commitment(salt(LEAF)),
        "new_salt": commitment(salt(NEW)),
        "trees": dict(item.trees),
    }


def _generation(salt: bytes, facts: GenerationFacts) -> dict[str, Any]:
    return {
        "number": facts.number,
        "key": seal(salt, "generation", facts.key),
        "graph": seal(salt, "graph", facts.graph),
        "partition": seal(salt, "partition", facts.partition),
        "aggregator": seal(salt, "aggregator", facts.aggregator),
    }


def _purged(salt: bytes, item: Purged) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "digest": seal(salt, item.kind, item.key),
        "location": item.location,
        "at": time_text(item.at),
    }


def _residual(item: Residual) -> dict[str, Any]:
    expires = None if item.expires_at is None else time_text(item.expires_at)
    return {
        "kind": item.kind,
        "where": item.where,
        "expires_at": expires,
        "reason": item.reason,
    }
