"""API keys, and who is told of what became of a request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    _create_keys()
    op.create_table(
        "callbacks",
        _text("callback_id", primary_key=True),
        *[_text(name) for name in ("request_id", "host")],
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _text("secret_id"),
        sa.Column("queued", sa.Integer, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
    )
    op.create_index("callbacks_request", "callbacks", ["request_id"])
    op.create_index("callbacks_open", "callbacks", ["is_open"])
    op.create_table(
        "deliveries",
        _text("delivery_id", primary_key=True),
        *[_text(name) for name in ("callback_id", "request_id")],
        sa.Column("event", sa.Integer, nullable=False),
        _text("state"),
        sa.Column("attempts", sa.Integer, nullable=False),
        _time("created_at", nullable=False),
        _time("next_at", nullable=False),
        sa.Column("last_status", sa.Integer),
        _text("last_error"),
    )
    op.create_index("deliveries_state", "deliveries", ["state", "next_at"])
    op.create_index("deliveries_request", "deliveries", ["request_id"])


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        _text("key_id", primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        *[_text(name) for name in ("role", "note", "created_by")],
        _time("created_at", nullable=False),
        *[_time(name) for name in ("expires_at", "last_used_at", "deleted_at")],
    )
    op.create_table(
        "webhook_secrets",
        _text("secret_id", primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _text("note"),
        _time("created_at", nullable=False),
        _time("deleted_at"),
    )


def _text(name: str, *, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, primary_key=primary_key)


def _time(name: str, *, nullable: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)
