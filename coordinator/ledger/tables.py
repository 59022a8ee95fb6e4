"""Tables of the ledger as the newest migration leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

SCHEMA_VERSION = 2
HEAD = "0005"  # newest revision in migrations/versions
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware time, stored as microseconds since 1970: exact and sortable on either backend."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Time to microseconds."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Microseconds to UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


class PlainJson(TypeDecorator[Any]):
    """Plain JSON with sorted keys, so that equal values are equal texts."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Value to text."""
        return None if value is None else dump(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Text to value."""
        return None if value is None else json.loads(value)


def dump(value: Any) -> str:
    """JSON text with sorted keys and no blanks."""
    plain = dict(value) if isinstance(value, Mapping) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


metadata = MetaData()

settings = Table(
    "settings",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("fence", BigInteger, nullable=False),  # grows by one with each acquisition
    Column("holder", Text, nullable=False),  # process and host, for messages
    Column("place", Text, nullable=False),  # host, boot and home: where its flock can be seen
    Column("flocked", Boolean, nullable=False),  # whether the holder also has the file lock
    Column("expires_at", Float(53), nullable=False),  # by the database's clock; 0: released
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("revision", Integer, nullable=False),  # number of its events
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("regulation", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("submitted_at", Instant),
    Column("due_at", Instant, nullable=False),
    Column("cancel_until", Instant, nullable=False),
    Column("accepted_at", Instant),
    Column("started_at", Instant),
    Column("unlearned_at", Instant),
    Column("completed_at", Instant),
    Column("not_before", Instant),
    Column("attempts", Integer, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("needs_approval", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("held_by", Text, nullable=False),
    Column("extended", Boolean, nullable=False),
    Column("external_request_id", Text),
    Column("idempotency_key", Text),
    Column("body_digest", Text, nullable=False),
    Column("parent_id", Text),
    Column("duplicate_of", Text),
    Column("batch_id", Text),
    Column("epoch", BigInteger),
    Column("subject_ref", Text, nullable=False),
    Column("records", PlainJson, nullable=False),
    Column("shards", PlainJson, nullable=False),
    Column("estimated_seconds", Float(53), nullable=False),
    Column("unknown", Integer, nullable=False),
    Column("serving_policy", Text),  # None: that of the service
    Column("acceptance", Text),  # a signed envelope
    Column("certificate_id", Text),
    Column("receipt", PlainJson),
    Column("payload", LargeBinary),  # the records to forget, in cipher; destroyed at the end
    Column("vault_key", Text),  # name of the key file that opens the payload
    Index("requests_state", "state", "due_at"),
    Index("requests_batch", "batch_id"),
    Index("requests_parent", "parent_id"),
    Index("requests_external", "external_request_id"),
    Index("requests_vault", "vault_key"),
    Index("requests_idempotency", "idempotency_key", unique=True),
)

events = Table(
    "events",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("mark", LargeBinary, primary_key=True),  # HMAC of kind and record
    Column("request_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("readmitted", BigInteger),  # epoch at which the record was let in anew; None: never
    Index("tombstones_request", "request_id"),
)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("shards", PlainJson, nullable=False),
    Column("num_requests", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("evidence", PlainJson),  # destroyed when the batch is done
)

artefacts = Table(
    "artefacts",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
)

backups = Table(
    "backups",
    metadata,
    Column("name", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("made_at", Instant, nullable=False),
    Column("expires_at", Instant),  # None: until it is removed
    Column("epoch", BigInteger, nullable=False),
)

generations = Table(
    "generations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("body", PlainJson, nullable=False),
    Column("is_current", Boolean, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),  # as it was hashed
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text),
    Column("detail", PlainJson, nullable=False),
    Column("hash", Text, nullable=False),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),  # of the row it signs
    Column("envelope", Text, nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("certificate_id", Text, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),  # order of issue
    Column("request_id", Text, nullable=False),
    Column("batch_id", Text),
    Column("envelope", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # its leaf key, sealed under the home's key
    Index("certificates_request", "request_id"),
)

certificate_shards = Table(
    "certificate_shards",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("certificate_id", Text, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the secret
    Column("role", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("last_used_at", Instant),
    Column("deleted_at", Instant),
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("secret_id", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # under the home's key
    Column("note", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("deleted_at", Instant),
)

callbacks = Table(
    "callbacks",
    metadata,
    Column(
        "callback_id", Text, primary_key=True
    ),  # digest of request and URL, under the home's key
    Column("request_id", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # the URL, which may name anybody
    Column("secret_id", Text, nullable=False),
    Column("queued", Integer, nullable=False),  # number of the last event with a delivery
    Column("is_open", Boolean, nullable=False),  # whether more events may come
    Index("callbacks_request", "request_id"),
    Index("callbacks_open", "is_open"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery_id", Text, primary_key=True),
    Column("callback_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("event", Integer, nullable=False),  # its number within the request
    Column("state", Text, nullable=False),  # pending, delivered or dead
    Column("attempts", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("next_at", Instant, nullable=False),
    Column("last_status", Integer),  # of HTTP; None where there was no answer
    Column("last_error", Text, nullable=False),  # one word
    Index("deliveries_state", "state", "next_at"),
    Index("deliveries_request", "request_id"),
)
