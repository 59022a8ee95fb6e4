"""The office's keys: who may ask, as what, until when."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from cluster.errors import NotFoundError, RequestError, UnweaveError
from coordinator.ledger.key_table import ApiKey
from coordinator.requests.times import as_utc
from coordinator.serving.desk import Desk
from coordinator.serving.roles import ROLES
from coordinator.serving.views import iso

SECRET_BYTES: Final = 32
FORM: Final = re.compile(r"uw_k1_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
NOTE_USE_EVERY: Final = timedelta(minutes=1)  # a use is written down no more often
_NOBODY: Final = hashlib.sha256(b"").digest()  # compared with where there is no such key


class Access(Desk):
    """API keys: ``uw_k1_<id>_<secret>``, 256 random bits, of which the ledger keeps the SHA-256."""

    def create_key(
        self, role: str, by: str, expires_at: str | datetime | None = None, note: str = ""
    ) -> dict[str, Any]:
        """Make a key; its text is shown here once and is nowhere kept.

        Raises:
            RequestError: the role is none, or the end is no time to come.
        """
        if role not in ROLES:
            raise RequestError(f"role is {role!r}; choose one of {list(ROLES)}")
        now, end = self.clock(), _time(expires_at)
        if end is not None and end <= now:
            raise RequestError(f"expires_at is {iso(end)}, which is over; give a time to come")
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(SECRET_BYTES)
        key = ApiKey(key_id, _digest(secret), role, note, by, now, end)
        with self.ledger.write() as tx:
            self.ledger.api_keys.add(tx, key)
            detail = {"key": key_id, "role": role}
            self.ledger.audit.append(tx, "create_key", by, None, detail, at=now)
        return self._shown(key) | {"key": f"uw_k1_{key_id}_{secret}"}

    def list_keys(self) -> list[dict[str, Any]]:
        """All keys, without their secrets, oldest first."""
        return [self._shown(key) for key in self.ledger.api_keys.list()]

    def delete_key(self, key_id: str, by: str) -> dict[str, Any]:
        """Take a key back, at once.

        Raises:
            NotFoundError: there is none, or it was taken back before.
        """
        found, now = self.ledger.api_keys.get(key_id), self.clock()
        if found is None or found.deleted_at is not None:
            raise NotFoundError("key", "list them with GET /v1/api-keys")
        with self.ledger.write() as tx:
            self.ledger.api_keys.delete(tx, key_id, now)
            self.ledger.audit.append(tx, "delete_key", by, None, {"key": key_id}, at=now)
        return self._shown(replace(found, deleted_at=now))

    def authenticate(self, key: str) -> dict[str, str] | None:
        """Who holds a key: its id and role; None where it is none, or is over."""
        parts = FORM.fullmatch(key)
        if parts is None:
            return None
        found, now = self.ledger.api_keys.get(parts[1]), self.clock()
        known = _NOBODY if found is None else found.digest
        is_right = hmac.compare_digest(known, _digest(parts[2]))
        if not is_right or found is None or not found.is_valid(now):
            return None
        if found.last_used_at is None or now - found.last_used_at >= NOTE_USE_EVERY:
            with suppress(UnweaveError), self.ledger.write() as tx:
                self.ledger.api_keys.note_use(tx, found.key_id, now)
        return {"key_id": found.key_id, "role": found.role}

    def _shown(self, key: ApiKey) -> dict[str, Any]:
        times = ("created_at", "expires_at", "last_used_at", "deleted_at")
        same = {name: getattr(key, name) for name in ("key_id", "role", "note", "created_by")}
        shown = {name: iso(getattr(key, name)) for name in times}
        return same | shown | {"is_valid": key.is_valid(self.clock())}


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _time(value: str | datetime | None) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise RequestError(f"expires_at is {value!r}; give an ISO 8601 time") from None
    return None if value is None else as_utc(value, "expires_at")
