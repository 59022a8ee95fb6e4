"""Check a certificate with nothing but the certificate and the issuer's public keys.

Level 1 needs no data; with a disclosed leaf key or the secret the holder of a record checks that
the certificate is about it. Runs as ``python -m coordinator.evidence.check CERT --key issuer.pub``
and imports neither torch, Ray, NumPy, pandas, Arrow nor SQL.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cluster.errors import VerificationError
from coordinator.evidence.acceptance import (
    describe_acceptance,
    is_acceptance,
    open_acceptance,
)
from coordinator.evidence.canonical import read_object
from coordinator.evidence.describe import describe
from coordinator.evidence.dsse import open_envelope
from coordinator.evidence.errors import FieldValueError, RecordError, SecretError
from coordinator.evidence.keys import read_keys
from coordinator.evidence.live import check_live as check_live
from coordinator.evidence.lookup import Record as Record
from coordinator.evidence.lookup import Statement, accept_disclosure, accept_secret, find_record
from coordinator.evidence.merkle import Proof
from coordinator.evidence.report import Check, Report, attempt
from coordinator.evidence.salts import SECRET_BYTES, Disclosure
from coordinator.evidence.shape import require_statement
from coordinator.evidence.statement import state_of, subjects_of

Keys = Mapping[str, Ed25519PublicKey]


def open_certificate(text: str | bytes, keys: Keys) -> Statement:
    """Check signature, fields and proofs of a certificate; returns its statement.

    Raises:
        VerificationError: a leaf of it for every way a certificate can be wrong.
    """
    payload, key_id = open_envelope(text, keys)
    require_statement(payload)
    predicate = payload["predicate"]
    if predicate["issuer"]["key_id"] != key_id:
        raise FieldValueError(
            f"issuer.key_id is {predicate['issuer']['key_id']!r}, but key {key_id!r} signed"
        )
    if payload["subject"] != subjects_of(predicate):
        raise FieldValueError("subject does not list the new generation and submodels")
    if predicate["scope"]["shards"] != [item["shard"] for item in predicate["shards"]]:
        raise FieldValueError("scope.shards does not list the shards")
    for item in predicate["shards"]:
        _check_trees(item)
    return payload


def _check_trees(item: Mapping[str, Any]) -> None:
    """Proofs lead to the roots and hold the values that the entry names."""
    trees, where = item["trees"], f"shard {item['shard']}"
    if not trees["records"]:
        return
    proofs = []
    for side in ("before", "after"):
        proof = Proof.from_json(trees[side]["proof"], f"{where}, {side}")
        proof.check(bytes.fromhex(trees[side]["root"]))
        proofs.append(proof)
    for record in trees["records"]:
        found = [proof.find(bytes.fromhex(record["position"])) for proof in proofs]
        shown = [None if value is None else value.hex() for value in found]
        if shown != [record["before"], record["after"]] or record["state"] != state_of(*shown):
            raise RecordError(f"{where} names a leaf otherwise than its proofs show it")


def check_certificate(
    text: str | bytes,
    keys: Keys,
    *,
    secret: bytes | None = None,
    disclosure: Disclosure | None = None,
    record: Record | None = None,
) -> Report:
    """Check a certificate (level 1), and a record in it where a key to its leaves is given.

    An acceptance receipt is checked too; it has no leaves to look into.

    Args:
        text: the certificate, or the receipt.
        keys: the issuer's public keys.
        secret: the certificate's secret, which opens every shard.
        disclosure: or what the issuer disclosed of one shard.
        record: a record to look up; needs one of the two.
    """
    checks: list[Check] = []
    if is_acceptance(text):
        attempt(checks, "signature and fields", lambda: _open_acceptance(text, keys))
        if secret is not None or disclosure is not None or record is not None:
            checks.append(Check("record", False, "an acceptance receipt has no leaves"))
        return Report(tuple(checks))
    statement = attempt(checks, "signature, fields and proofs", lambda: _open(text, keys))
    if statement is None:
        return Report(tuple(checks))
    opened: list[Disclosure] = []
    if secret is not None:
        opened = attempt(checks, "secret", lambda: accept_secret(statement, secret)) or []
    if disclosure is not None:
        opened += (
            attempt(checks, "disclosed key", lambda: accept_disclosure(statement, disclosure)) or []
        )
    if record is not None:
        attempt(checks, "record", lambda: find_record(statement, opened, record))
    return Report(tuple(checks))


def _open(text: str | bytes, keys: Keys) -> tuple[Statement, str]:
    statement = open_certificate(text, keys)
    predicate = statement["predicate"]
    return statement, (
        f"certificate {predicate['certificate']} by {predicate['issuer']['name']}, "
        f"key {predicate['issuer']['key_id']}"
    )


def _open_acceptance(text: str | bytes, keys: Keys) -> tuple[Statement, str]:
    statement = open_acceptance(text, keys)
    issuer = statement["issuer"]
    remark = f"acceptance of {statement['request']} by {issuer['name']}, key {issuer['key_id']}"
    return statement, remark


def describe_file(text: str | bytes, keys: Keys) -> str:
    """A certificate or an acceptance receipt for people, checked.

    Raises:
        VerificationError: a leaf of it.
    """
    if is_acceptance(text):
        return describe_acceptance(open_acceptance(text, keys))
    return describe(open_certificate(text, keys))


# ---- as a program


def read_secret(path: Path) -> bytes:
    """Read a secret file: 64 hex digits.

    Raises:
        SecretError: it is none.
    """
    try:
        secret = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise SecretError(f"{path} holds no secret: {error}") from None
    if len(secret) != SECRET_BYTES:
        raise SecretError(f"{path} holds {len(secret)} bytes, not {SECRET_BYTES}")
    return secret


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        VerificationError: the file is missing or holds none.
    """
    return read_object(read_file(path), str(path))


def read_file(path: Path) -> bytes:
    """Bytes of a file.

    Raises:
        VerificationError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise VerificationError(f"{path} cannot be read: {error.strerror}") from None


def check_files(
    certificate: Path,
    keys: Path,
    *,
    secret: Path | None = None,
    disclosure: Path | None = None,
    record: Path | None = None,
) -> Report:
    """:func:`check_certificate` on files.

    Raises:
        VerificationError: a file cannot be read.
    """
    return check_certificate(
        read_file(certificate),
        read_keys(keys),
        secret=None if secret is None else read_secret(secret),
        disclosure=None if disclosure is None else Disclosure.from_json(read_json(disclosure)),
        record=None if record is None else Record.from_json(read_json(record)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a certificate from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m coordinator.evidence.check")
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--key", type=Path, required=True, help="the issuer's issuer.pub")
    parser.add_argument("--secret", type=Path, help="file with the certificate's secret")
    parser.add_argument("--disclosure", type=Path, help="JSON file with a disclosed leaf key")
    parser.add_argument("--record", type=Path, help="JSON file with a record to look up")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args(arguments)
    try:
        report = check_files(
            options.certificate,
            options.key,
            secret=options.secret,
            disclosure=options.disclosure,
            record=options.record,
        )
    except VerificationError as error:
        report = Report((Check("files", False, f"{error.code} {error}"),))
    lines = [json.dumps(report.to_json())] if options.as_json else report.lines()
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if report.ok else VerificationError.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
