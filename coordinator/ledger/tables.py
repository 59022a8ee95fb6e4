"""Tables of the ledger."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Integer, LargeBinary, MetaData, Table, Text

SCHEMA_VERSION = 1

metadata = MetaData()

settings = Table(
    "settings",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("epoch", Integer, nullable=False, unique=True),
    Column("state", Text, nullable=False),  # accepted | completed
    Column("payload", Text),  # the records to forget; destroyed on completion
    Column("receipt", Text),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("mark", LargeBinary, primary_key=True),  # HMAC of kind and record
    Column("kind", Text, nullable=False),
    Column("request_id", Text, nullable=False),
)

artefacts = Table(
    "artefacts",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),
)

generations = Table(
    "generations",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("body", Text, nullable=False),
    Column("is_current", Boolean, nullable=False),
)
