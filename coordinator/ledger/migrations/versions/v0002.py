"""Requests with a life of their own, lease, vault, audit log, certificates, batches, backups.

Nothing is lost from a ledger of revision 0001: its secret moves into ``home/keys/home.key``, the
records of unfinished requests into the vault, requests and tombstones into the wider tables.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from coordinator.ledger.vault import Vault

revision = "0002"
down_revision = "0001"

_OLD = ("requests", "tombstones", "artefacts", "generations")
_DUE = timedelta(days=30)  # revision 0001 knew no deadline; the GDPR's month
_NOTE = "taken over from ledger schema 1"
_MILLION = 1_000_000


def upgrade() -> None:
    """Make the new tables and carry the old rows over."""
    tx, vault = op.get_bind(), Vault(context.config.attributes["home"])
    settings = {row.name: row.value for row in tx.execute(sa.text("SELECT * FROM settings"))}
    old = {table: _rows(tx, table) for table in _OLD}
    for table in _OLD:
        op.drop_table(table)
    _create_requests()
    _create_records()
    _create_evidence()
    tables = sa.MetaData()
    tables.reflect(tx, only=("settings", "events", "counters", "lease", *_OLD))
    named = tables.tables
    _carry_settings(tx, vault, settings, named["settings"])
    _carry_requests(old["requests"], vault, named)
    for name in ("tombstones", "artefacts", "generations"):
        if old[name]:
            op.bulk_insert(named[name], old[name])
    epochs = [row["epoch"] for row in old["requests"]]
    op.bulk_insert(named["counters"], [{"name": "epoch", "value": max(epochs, default=0)}])
    free = {"holder": "", "place": "", "flocked": False, "expires_at": 0.0}
    op.bulk_insert(named["lease"], [{"id": 1, "fence": int(settings.get("fence", 0) or 0)} | free])


def _rows(tx: sa.Connection, table: str) -> list[dict[str, Any]]:
    found = [dict(row._mapping) for row in tx.execute(sa.text(f"SELECT * FROM {table}"))]
    for row in found:
        if "is_current" in row:
            row["is_current"] = bool(row["is_current"])
    return found


def _carry_settings(
    tx: sa.Connection, vault: Vault, found: dict[str, str], settings: sa.Table
) -> None:
    """Move the secret to its file; an old release then refuses the home by its schema version."""
    secret = found.get("secret")
    vault.begin(bytes.fromhex(secret) if secret else None)
    tx.execute(
        sa.delete(settings).where(settings.c.name.in_(["secret", "fence", "schema_version"]))
    )
    fresh = {"schema_version": "2", "key_check": vault.check_value()}
    op.bulk_insert(settings, [{"name": name, "value": value} for name, value in fresh.items()])


def _carry_requests(old: list[dict[str, Any]], vault: Vault, tables: Any) -> None:
    """Old requests were urgent, of one caller, and either accepted or completed."""
    unfinished = [row for row in old if row["payload"] is not None]
    key = vault.new_key() if unfinished else None
    rows, events = [], []
    for row in old:
        request_id, received = row["request_id"], _time_of(row["request_id"])
        payload = json.loads(row["payload"] or "{}")
        receipt = json.loads(row["receipt"] or "{}")
        done = received + int(receipt.get("seconds", 0) * _MILLION)
        is_done = row["state"] == "completed"
        sealed = None
        if row["payload"] is not None:
            assert key is not None
            sealed = vault.seal(key, request_id, row["payload"].encode())
        rows.append(
            _DEFAULTS
            | {
                "request_id": request_id,
                "kind": _kind_of(payload or {"mixed": True}),
                "state": row["state"],
                "received_at": received,
                "due_at": received + int(_DUE.total_seconds()) * _MILLION,
                "cancel_until": received,
                "accepted_at": received,
                "unlearned_at": done if is_done else None,
                "completed_at": done if is_done else None,
                "epoch": row["epoch"],
                "records": json.dumps(payload.get("records") or receipt.get("records") or {}),
                "receipt": row["receipt"],
                "payload": sealed,
                "vault_key": None if sealed is None else key,
            }
        )
        event = {"request_id": request_id, "seq": 1, "at": received, "state": row["state"]}
        events.append(event | {"action": "upgrade", "by": "", "detail": _NOTE})
    if rows:
        op.bulk_insert(tables["requests"], rows)
        op.bulk_insert(tables["events"], events)


_DEFAULTS: dict[str, Any] = {
    "revision": 1,
    "regulation": "gdpr",
    "priority": "urgent",
    "attempts": 0,
    "requested_by": "",
    "approved_by": "",
    "needs_approval": False,
    "reason": _NOTE,
    "held_by": "",
    "extended": False,
    "body_digest": "",
    "subject_ref": "",
    "shards": "[]",
    "estimated_seconds": 0.0,
    "unknown": 0,
}


def _time_of(request_id: str) -> int:
    """Microseconds since 1970 out of an old id, ``req_`` and 16 hex digits of nanoseconds."""
    try:
        return int(request_id.removeprefix("req_")[:16], 16) // 1000
    except ValueError:
        return int(datetime.now(UTC).timestamp() * _MILLION)


def _kind_of(payload: dict[str, Any]) -> str:
    named = [kind for kind in ("nodes", "edges", "features", "labels") if payload.get(kind)]
    return named[0] if len(named) == 1 else "mixed"


def _text(name: str, *, nullable: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, primary_key=primary_key)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _int(name: str, *, primary_key: bool = False) -> sa.Column[int]:
    auto: Any = False if primary_key else "auto"
    return sa.Column(name, sa.Integer, nullable=False, primary_key=primary_key, autoincrement=auto)


def _create_requests() -> None:
    optional_times = ("accepted_at", "started_at", "unlearned_at", "completed_at", "not_before")
    op.create_table(
        "requests",
        _text("request_id", primary_key=True),
        _int("revision"),
        *[_text(name) for name in ("kind", "state", "regulation", "priority")],
        _big("received_at"),
        _big("submitted_at", nullable=True),
        _big("due_at"),
        _big("cancel_until"),
        *[_big(name, nullable=True) for name in optional_times],
        _int("attempts"),
        _text("requested_by"),
        _text("approved_by"),
        sa.Column("needs_approval", sa.Boolean, nullable=False),
        _text("reason"),
        _text("held_by"),
        sa.Column("extended", sa.Boolean, nullable=False),
        _text("external_request_id", nullable=True),
        _text("idempotency_key", nullable=True),
        _text("body_digest"),
        *[_text(name, nullable=True) for name in ("parent_id", "duplicate_of", "batch_id")],
        _big("epoch", nullable=True),
        *[_text(name) for name in ("subject_ref", "records", "shards")],
        sa.Column("estimated_seconds", sa.Float(53), nullable=False),
        _int("unknown"),
        *[_text(name, nullable=True) for name in ("certificate_id", "receipt")],
        sa.Column("payload", sa.LargeBinary),
        _text("vault_key", nullable=True),
    )
    op.create_index("requests_state", "requests", ["state", "due_at"])
    op.create_index("requests_batch", "requests", ["batch_id"])
    op.create_index("requests_parent", "requests", ["parent_id"])
    op.create_index("requests_external", "requests", ["external_request_id"])
    op.create_index("requests_vault", "requests", ["vault_key"])
    op.create_index("requests_idempotency", "requests", ["idempotency_key"], unique=True)
    op.create_table(
        "events",
        _text("request_id", primary_key=True),
        _int("seq", primary_key=True),
        _big("at"),
        *[_text(name) for name in ("state", "action", "by", "detail")],
    )
    op.create_table(
        "tombstones",
        sa.Column("mark", sa.LargeBinary, nullable=False, primary_key=True),
        _text("request_id", primary_key=True),
        _text("kind"),
        sa.Column("readmitted", sa.BigInteger),
    )
    op.create_index("tombstones_request", "tombstones", ["request_id"])


def _create_records() -> None:
    op.create_table("counters", _text("name", primary_key=True), _big("value"))
    op.create_table(
        "lease",
        _int("id", primary_key=True),
        _big("fence"),
        _text("holder"),
        _text("place"),
        sa.Column("flocked", sa.Boolean, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "artefacts", _text("kind", primary_key=True), _text("key", primary_key=True), _big("epoch")
    )
    op.create_table(
        "backups",
        _text("name", primary_key=True),
        _text("path"),
        _big("made_at"),
        _big("expires_at", nullable=True),
        _big("epoch"),
    )
    op.create_table(
        "generations",
        _int("number", primary_key=True),
        _text("body"),
        sa.Column("is_current", sa.Boolean, nullable=False),
    )
    op.create_table(
        "batches",
        _text("batch_id", primary_key=True),
        _text("state"),
        _text("shards"),
        _int("num_requests"),
        _big("started_at"),
        _big("fence"),
        _text("evidence", nullable=True),
    )


def _create_evidence() -> None:
    op.create_table(
        "audit",
        _int("seq", primary_key=True),
        *[_text(name) for name in ("at", "action", "actor")],
        _text("request_id", nullable=True),
        _text("detail"),
        _text("hash"),
    )
    op.create_table("audit_heads", _int("seq", primary_key=True), _text("envelope"))
    op.create_table(
        "certificates",
        _text("certificate_id", primary_key=True),
        sa.Column("number", sa.Integer, nullable=False, unique=True),
        _text("request_id"),
        _text("batch_id", nullable=True),
        _text("envelope"),
        sa.Column("secret", sa.LargeBinary, nullable=False),
    )
    op.create_index("certificates_request", "certificates", ["request_id"])
    op.create_table(
        "certificate_shards",
        _int("shard", primary_key=True),
        _int("number", primary_key=True),
        _text("certificate_id"),
    )
