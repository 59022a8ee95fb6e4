"""The audit log's hash chain: ``h_i = SHA-256(h_(i-1) || canonical row i)``, and signed heads.

A row is a JSON object with ``seq`` (1, 2, ...) and, beside what it says, its ``hash``; the row
before the first has hash zero. A head is a DSSE envelope over the sequence number and hash of the
last row at its time. The chain shows a changed row; a head shows rows that were cut off or a log
that was written anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cluster.errors import VerificationError
from coordinator.evidence.canonical import canonical, read_canonical, read_object
from coordinator.evidence.dsse import open_envelope, sign
from coordinator.evidence.errors import (
    FieldValueError,
    LogDroppedError,
    LogHeadError,
    LogInsertedError,
    LogOrderError,
    LogRowError,
    LogTruncatedError,
    UnknownFieldError,
)
from coordinator.evidence.fields import HEX32, TIME, require
from coordinator.evidence.keys import Signer
from coordinator.evidence.report import Check, Report, attempt
from coordinator.evidence.statement import time_text

GENESIS = "0" * 64  # hash of the row before the first
HEAD_TYPE = "application/vnd.unweave.log-head+json"

_HEAD = {"log": str, "seq": int, "hash": HEX32, "at": TIME}

Row = Mapping[str, Any]


def row_hash(previous: str, row: Row) -> str:
    """Hash (hex) of a row that follows a row with hash ``previous``; its own hash is left out."""
    content = {name: value for name, value in row.items() if name != "hash"}
    return hashlib.sha256(bytes.fromhex(previous) + canonical(content)).hexdigest()


def sign_head(log: str, seq: int, hash: str, at: datetime, signer: Signer) -> str:
    """Sign the head of a log; ``log`` is the log's id, ``seq`` 0 that of an empty log."""
    head = {"log": log, "seq": seq, "hash": hash, "at": time_text(at)}
    return sign(head, signer, HEAD_TYPE)


def require_chain(rows: Sequence[Row]) -> None:
    """Check that rows 1 to n are there, in order, each with the hash that follows.

    Raises:
        VerificationError: a leaf that says what happened to which row.
    """
    present = _sequence_numbers(rows)
    previous, seen = GENESIS, set[int]()
    for expected, row in enumerate(rows, start=1):
        seq = row["seq"]
        if seq != expected:
            raise _misplaced(seq, expected, present, seen)
        if row_hash(previous, row) != row["hash"]:
            raise LogRowError(f"row {seq} was changed (or replaced): its hash does not follow")
        seen.add(seq)
        previous = row["hash"]


def _sequence_numbers(rows: Sequence[Row]) -> set[int]:
    for number, row in enumerate(rows, start=1):
        require({name: row.get(name) for name in ("seq", "hash")}, _LINK, f"row {number}")
    return {row["seq"] for row in rows}


_LINK = {"seq": int, "hash": HEX32}


def _misplaced(seq: int, expected: int, present: set[int], seen: set[int]) -> VerificationError:
    if seq in seen:
        return LogInsertedError(f"row {seq} is there twice; one was inserted after {expected - 1}")
    if expected in present:
        return LogOrderError(f"row {seq} stands where row {expected} belongs")
    return LogDroppedError(f"row {expected} is missing")


def require_heads(
    rows: Sequence[Row],
    heads: Sequence[str],
    keys: Mapping[str, Ed25519PublicKey],
    log: str | None = None,
) -> int:
    """Check that every signed head is a head of this log.

    Args:
        rows: the rows, their chain checked.
        heads: signed heads, oldest first.
        keys: the issuer's public keys.
        log: the log's id, if known; else all heads must name the same.

    Returns:
        Sequence number of the last head, 0 without one.

    Raises:
        VerificationError: a leaf of it.
    """
    last = 0
    for text in heads:
        head, _ = open_envelope(text, keys, HEAD_TYPE)
        require(head, _HEAD, "head")
        log = head["log"] if log is None else log
        if head["log"] != log:
            raise LogHeadError(f"a head is one of log {head['log']!r}, not of {log!r}")
        if head["seq"] < last:
            raise LogHeadError(f"the head at row {head['seq']} stands after one at row {last}")
        require_inclusion(rows, head["seq"], head["hash"])
        last = head["seq"]
    return last


def require_inclusion(rows: Sequence[Row], seq: int, hash: str) -> None:
    """Check that a log whose chain holds had this head; a certificate names one, too.

    Raises:
        LogTruncatedError: the log ends before it.
        LogHeadError: it is not a head of this log.
    """
    if seq > len(rows):
        raise LogTruncatedError(f"a signed head names row {seq}, but the log ends at {len(rows)}")
    found = rows[seq - 1]["hash"] if seq > 0 else GENESIS
    if seq < 0 or found != hash:
        raise LogHeadError(
            f"row {seq} does not have the hash of the signed head: the log was written anew, or "
            "the head is one of another log"
        )


def check_chain(
    rows: Sequence[Row],
    heads: Sequence[str],
    keys: Mapping[str, Ed25519PublicKey],
    log: str | None = None,
) -> Report:
    """:func:`require_chain` and :func:`require_heads` as a report."""
    checks: list[Check] = []

    def chain() -> tuple[bool, str]:
        require_chain(rows)
        return True, f"{len(rows)} rows"

    def signed() -> tuple[int, str]:
        last = require_heads(rows, heads, keys, log)
        if not heads:
            return 0, "no signed head: rows cut off at the end would not be noticed"
        return last, f"{len(heads)} heads, the last at row {last} of {len(rows)}"

    if attempt(checks, "chain", chain):
        attempt(checks, "signed heads", signed)
    return Report(tuple(checks))


def export_log(rows: Iterable[Row], heads: Iterable[str]) -> Iterator[str]:
    """The log as JSON lines, rows first; every line is canonical and ends in a line feed."""
    for row in rows:
        yield canonical({"row": dict(row)}).decode() + "\n"
    for head in heads:
        yield canonical({"head": read_object(head, "head")}).decode() + "\n"


def import_log(lines: Iterable[bytes]) -> tuple[list[dict[str, Any]], list[str]]:
    r"""Read an exported log, opened in binary mode; nothing is checked but its form.

    Raises:
        VerificationError: a line is not one that :func:`export_log` writes.
    """
    rows: list[dict[str, Any]] = []
    heads: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            raise LogTruncatedError(f"line {number} does not end; the file was cut")
        value = read_canonical(line[:-1], f"line {number}")
        if set(value) not in ({"row"}, {"head"}):
            raise UnknownFieldError(f"line {number} is neither a row nor a head")
        item = next(iter(value.values()))
        if not isinstance(item, dict):
            raise FieldValueError(f"line {number} holds no object")
        if "row" in value and heads:
            raise LogOrderError(f"line {number} is a row, after the heads")
        if "row" in value:
            rows.append(item)
        else:
            heads.append(canonical(item).decode())
    return rows, heads
