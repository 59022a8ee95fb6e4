"""Look a known record up in a certificate, with the keys to its leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.ids import NodeId, id_from_json
from coordinator.evidence.errors import FieldValueError, RecordError, SecretError
from coordinator.evidence.fields import Maybe, require
from coordinator.evidence.merkle import position_of, value_of
from coordinator.evidence.records import NO_LABEL, RowOpening, name_digest
from coordinator.evidence.salts import Disclosure, commitment, disclose
from coordinator.evidence.shape import GONE, NEVER, UNCHANGED

Statement = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """A record that its holder knows, to be looked up in a certificate.

    Attributes:
        node_id: external id of the node (of an edge: of its target).
        before: the node's row before, if the holder knows all of it.
        after: the node's row now as the issuer opened it, if the node itself stays.
        edges_from: sources whose edge to the node must be gone from ``after``.
        label_gone: whether ``after`` must show no label.
        columns_gone: feature columns that must be 0 in ``after``.
    """

    node_id: NodeId
    before: RowOpening | None = None
    after: RowOpening | None = None
    edges_from: tuple[NodeId, ...] = ()
    label_gone: bool = False
    columns_gone: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read a record file; every field but ``id`` may be left out.

        Raises:
            VerificationError: a field is unknown or malformed.
        """
        full: dict[str, Any] = {"before": None, "after": None, "edges_from": []}
        full |= {"label_gone": False, "columns_gone": []} | dict(data)
        require(full, _RECORD, "record")
        try:
            ids = [id_from_json(pair) for pair in (full["id"], *full["edges_from"])]
        except (ValueError, LookupError) as error:
            raise FieldValueError(f"record has a malformed id: {error}") from None
        before, after = full["before"], full["after"]
        return cls(
            ids[0],
            None if before is None else RowOpening.from_json(before),
            None if after is None else RowOpening.from_json(after),
            tuple(ids[1:]),
            full["label_gone"],
            tuple(full["columns_gone"]),
        )


_RECORD = {
    "id": [str],
    "before": Maybe(dict),
    "after": Maybe(dict),
    "edges_from": [[str]],
    "label_gone": bool,
    "columns_gone": [int],
}


def shard_entry(statement: Statement, shard: int) -> Mapping[str, Any] | None:
    """What a certificate says of a shard, None where it does not name it."""
    entries = statement["predicate"]["shards"]
    return next((item for item in entries if item["shard"] == shard), None)


def accept_disclosure(statement: Statement, disclosure: Disclosure) -> tuple[list[Disclosure], str]:
    """Check that a disclosure is one of this certificate.

    Raises:
        SecretError: it is not.
    """
    entry = shard_entry(statement, disclosure.shard)
    certificate = statement["predicate"]["certificate"]
    if entry is None or disclosure.certificate != certificate:
        raise SecretError(
            f"the disclosure is one of certificate {disclosure.certificate}, shard "
            f"{disclosure.shard}; certificate {certificate} does not name that"
        )
    salt = disclosure.new_salt
    wrong_salt = salt is not None and commitment(salt) != entry["new_salt"]
    if commitment(disclosure.leaf_key) != entry["leaf_key"] or wrong_salt:
        raise SecretError(
            f"a key of shard {disclosure.shard} is not the one that the certificate commits to"
        )
    return [disclosure], f"shard {disclosure.shard}"


def accept_secret(statement: Statement, secret: bytes) -> tuple[list[Disclosure], str]:
    """Check that a secret is that of this certificate; returns what it discloses of every shard.

    Raises:
        SecretError: it is another one.
    """
    predicate = statement["predicate"]
    opened = []
    for item in predicate["shards"]:
        own = disclose(secret, predicate["certificate"], item["shard"], new_salt=True)
        opened += accept_disclosure(statement, own)[0]
    return opened, f"opens {len(opened)} shards"


def find_record(
    statement: Statement, opened: Sequence[Disclosure], record: Record
) -> tuple[bool, str]:
    """Look the record up in every shard that is open; it must be in one and erased in all.

    Raises:
        SecretError: no shard is open.
        RecordError: the certificate does not name the record, or does not show it erased.
    """
    if not opened:
        raise SecretError("a record needs the secret, or a disclosed leaf key, of this certificate")
    found = []
    for disclosure in opened:
        entry = shard_entry(statement, disclosure.shard)
        place = position_of(disclosure.leaf_key, name_digest(record.node_id)).hex()
        entries = [] if entry is None else entry["trees"]["records"]
        own = next((item for item in entries if item["position"] == place), None)
        if own is not None and own["state"] != NEVER:
            found.append((disclosure.shard, _check_record(disclosure, own, record)))
    if not found:
        shards = [disclosure.shard for disclosure in opened]
        raise RecordError(f"the certificate does not name this record in shards {shards}")
    return True, "; ".join(f"shard {shard}: {remark}" for shard, remark in found)


def _check_record(disclosure: Disclosure, own: Mapping[str, Any], record: Record) -> str:
    """What the entry shows of the record."""
    name, remarks = name_digest(record.node_id), []
    if record.before is not None:
        value = value_of(disclosure.leaf_key, record.before.digest(name))
        if own["before"] != value.hex():
            raise RecordError("the row held before was not the given one")
        remarks.append("the given row was held before")
    wants_part = record.edges_from or record.label_gone or record.columns_gone
    if own["state"] == GONE:
        return ", ".join([*remarks, "no row under this name is held after"])
    if not wants_part and record.after is None:
        raise RecordError(
            f"a row under this name is still held ({own['state']}); give the opened row and what "
            "of it must be gone, if the request was for an edge, a feature or a label"
        )
    if own["state"] == UNCHANGED:
        remarks.append("the row is what it was (it held nothing to erase here)")
    if record.after is None:
        raise RecordError("ask the issuer to open the row as it is now")
    if own["after"] != value_of(disclosure.leaf_key, record.after.digest(name)).hex():
        raise RecordError("the opened row is not the one held after")
    _check_parts(record.after, record)
    return ", ".join([*remarks, "what was asked is gone from the row held after"])


def _check_parts(after: RowOpening, record: Record) -> None:
    if any(after.has_edge_from(source) for source in record.edges_from):
        raise RecordError("the row held after still has the edge")
    if record.label_gone and after.shown_label is None:
        raise RecordError("the opening does not show the label; ask the issuer to show it")
    if record.label_gone and after.shown_label != NO_LABEL:
        raise RecordError("the row held after still has a label")
    if any(after.feature(column) != 0 for column in record.columns_gone):
        raise RecordError("the row held after still has a value in an erased column")
