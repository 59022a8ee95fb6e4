"""Ledger: what was accepted, promised and published. SQLite, WAL, fully synchronous."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError

from cluster.digest import encode
from cluster.errors import HomeError
from coordinator.ledger.tables import (
    SCHEMA_VERSION,
    artefacts,
    generations,
    metadata,
    requests,
    settings,
    tombstones,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingRequest:
    """An accepted request whose records are not forgotten yet."""

    request_id: str
    epoch: int
    payload: Mapping[str, Any]


class Ledger:
    """One home's record of truth; every method is one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _set_pragmas)
        try:
            with self._engine.begin() as tx:
                self._create_or_check(tx)
        except DatabaseError as error:
            raise HomeError(
                f"{path} is not a readable ledger ({error.orig}); restore it"
            ) from error
        self.truncate_log()
        self._secret = bytes.fromhex(self.setting("secret"))

    def _create_or_check(self, tx: Connection) -> None:
        if not inspect(tx).has_table("settings"):
            metadata.create_all(tx)
            fresh = {
                "schema_version": str(SCHEMA_VERSION),
                "home_id": secrets.token_hex(16),
                "secret": secrets.token_hex(32),
            }
            tx.execute(insert(settings), [{"name": k, "value": v} for k, v in fresh.items()])
        query = select(settings.c.value).where(settings.c.name == "schema_version")
        version = int(tx.execute(query).scalar_one())
        if version != SCHEMA_VERSION:
            raise HomeError(
                f"{self.path} has ledger schema {version}, this release reads {SCHEMA_VERSION}; "
                "use the release that wrote it"
            )

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    # ---- settings

    def setting(self, name: str) -> str:
        """A setting's value; the empty string when it was never set."""
        with self._engine.begin() as tx:
            query = select(settings.c.value).where(settings.c.name == name)
            return str(tx.execute(query).scalar_one_or_none() or "")

    def set_settings(self, values: Mapping[str, str]) -> None:
        """Write settings."""
        with self._engine.begin() as tx:
            for name, value in values.items():
                tx.execute(delete(settings).where(settings.c.name == name))
                tx.execute(insert(settings), {"name": name, "value": value})

    # ---- artefacts

    def register(self, keys: Iterable[tuple[str, str]], epoch: int) -> None:
        """Record the intent to write artefacts; to be called before their first byte."""
        rows = [{"kind": kind, "key": key, "epoch": epoch} for kind, key in keys]
        if rows:
            with self._engine.begin() as tx:
                tx.execute(insert(artefacts).prefix_with("OR IGNORE"), rows)

    def registered(self) -> set[tuple[str, str]]:
        """Every artefact that may exist."""
        with self._engine.begin() as tx:
            return {(row.kind, row.key) for row in tx.execute(select(artefacts))}

    def unregister(self, keys: Iterable[tuple[str, str]]) -> None:
        """Forget artefacts whose files were destroyed."""
        with self._engine.begin() as tx:
            for kind, key in keys:
                tx.execute(
                    delete(artefacts).where(artefacts.c.kind == kind, artefacts.c.key == key)
                )

    # ---- requests

    def accept(
        self, request_id: str, payload: Mapping[str, Any], marks: Mapping[bytes, str]
    ) -> int:
        """Make a request and its tombstones durable.

        Args:
            request_id: id of the request.
            payload: the records to forget, kept until completion.
            marks: tombstone -> kind.

        Returns:
            The graph epoch this request makes.
        """
        with self._engine.begin() as tx:
            epoch = self._epoch(tx) + 1
            row = {"request_id": request_id, "epoch": epoch, "state": "accepted"}
            tx.execute(insert(requests), row | {"payload": json.dumps(payload)})
            rows = [{"mark": m, "kind": k, "request_id": request_id} for m, k in marks.items()]
            if rows:
                tx.execute(insert(tombstones).prefix_with("OR IGNORE"), rows)
        return epoch

    def epoch(self) -> int:
        """Graph epoch: number of accepted changes."""
        with self._engine.begin() as tx:
            return self._epoch(tx)

    @staticmethod
    def _epoch(tx: Connection) -> int:
        return int(tx.execute(select(func.max(requests.c.epoch))).scalar() or 0)

    def pending(self) -> list[PendingRequest]:
        """Accepted requests that are not completed, oldest first."""
        query = select(requests).where(requests.c.state == "accepted").order_by(requests.c.epoch)
        with self._engine.begin() as tx:
            return [
                PendingRequest(row.request_id, row.epoch, json.loads(row.payload))
                for row in tx.execute(query)
            ]

    def complete(self, receipts: Mapping[str, Mapping[str, Any]]) -> None:
        """Close requests: keep the receipts, destroy the records they named, truncate the log."""
        with self._engine.begin() as tx:
            for request_id, receipt in receipts.items():
                tx.execute(
                    update(requests)
                    .where(requests.c.request_id == request_id)
                    .values(state="completed", payload=None, receipt=json.dumps(receipt))
                )
        self.truncate_log()

    def truncate_log(self) -> None:
        """Move the log into the database and cut it, so that nothing erased stays in it."""
        with self._engine.connect() as connection:
            busy = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).one()[0]
        if busy:
            logger.warning(
                "another process reads %s, so its log was not cut and may hold erased ids; "
                "end that reader and open the home again",
                self.path,
                extra={"event": "log_not_truncated"},
            )

    def receipt(self, request_id: str) -> dict[str, Any] | None:
        """Receipt of a completed request."""
        query = select(requests.c.receipt).where(requests.c.request_id == request_id)
        with self._engine.begin() as tx:
            raw = tx.execute(query).scalar_one_or_none()
        return None if raw is None else dict(json.loads(raw))

    def request_states(self) -> dict[str, int]:
        """Number of requests in each state."""
        query = select(requests.c.state, func.count()).group_by(requests.c.state)
        with self._engine.begin() as tx:
            return {state: count for state, count in tx.execute(query)}  # noqa: C416

    # ---- tombstones

    def mark(self, kind: str, *record: Any) -> bytes:
        """Keyed HMAC of a record; without the home's secret it names nobody."""
        return hmac.digest(self._secret, encode((kind, *record)), hashlib.sha256)

    def tombstone_kinds(self) -> set[str]:
        """Kinds of records that were ever erased here."""
        with self._engine.begin() as tx:
            return set(tx.execute(select(tombstones.c.kind).distinct()).scalars())

    def erased_by(self, marks: Sequence[bytes]) -> dict[bytes, str]:
        """Tombstone -> request id, for those of ``marks`` that exist."""
        found: dict[bytes, str] = {}
        with self._engine.begin() as tx:
            for start in range(0, len(marks), 500):
                chunk = marks[start : start + 500]
                query = select(tombstones).where(tombstones.c.mark.in_(chunk))
                found |= {row.mark: row.request_id for row in tx.execute(query)}
        return found

    # ---- generations

    def publish(self, number: int, body: Mapping[str, Any]) -> None:
        """Make a generation current, in one step.

        Raises:
            HomeError: somebody else published this number meanwhile.
        """
        try:
            with self._engine.begin() as tx:
                tx.execute(delete(generations).where(generations.c.number < number))
                row = {"number": number, "body": json.dumps(body), "is_current": True}
                tx.execute(insert(generations), row)
        except IntegrityError as error:
            raise HomeError(
                f"generation {number} was published by another process; open the home again"
            ) from error

    def current_generation(self) -> tuple[int, dict[str, Any]] | None:
        """Number and body of the published generation."""
        query = select(generations).where(generations.c.is_current)
        with self._engine.begin() as tx:
            row = tx.execute(query).one_or_none()
        return None if row is None else (row.number, dict(json.loads(row.body)))


def _set_pragmas(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
