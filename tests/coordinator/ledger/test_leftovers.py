"""What a kill or a full disk leaves of a ledger and its keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine
from sqlalchemy.exc import OperationalError

import coordinator.ledger.ledger
from cluster.errors import HomeError
from coordinator.ledger import Ledger
from coordinator.ledger.engine import translated, writing
from coordinator.ledger.vault import Vault
from tests.coordinator.ledger.records import PAYLOAD, record


def test_a_key_file_that_was_half_written_is_gone_once_the_home_is_opened(home: Path) -> None:
    Ledger("ledger.db", home=home).close()
    halves = [home / "keys" / "home.key.7.tmp", home / "keys" / "payload" / "ab.key.7.tmp"]
    for path in halves:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")

    ledger = Ledger("ledger.db", home=home)
    ledger.acquire()
    ledger.close()

    assert not any(path.exists() for path in halves)
    assert (home / "keys" / "home.key").exists()


@pytest.mark.parametrize("reason", ["disk I/O error", "database or disk is full"])
def test_a_database_that_cannot_grow_asks_for_space_and_not_for_a_backup(reason: str) -> None:
    engine = create_engine("sqlite:///ledger.db")

    with pytest.raises(HomeError, match="free some space") as raised, translated(engine):
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError(reason))

    assert "restore" not in str(raised.value)


@pytest.mark.parametrize("lost", ["the answer", "the commit", "the destruction"])
def test_a_payload_s_key_goes_after_a_failure_if_nothing_needs_it(
    lost: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = record(1), record(2)
    for one in (kept, gone):
        with ledger.write() as tx:
            ledger.requests.add(tx, [one], {one.request_id: PAYLOAD}, {})
    assert len(ledger.vault.names()) == 2

    @contextmanager
    def failing(engine: Engine) -> Iterator[Connection]:
        with writing(engine) as tx:
            yield tx
            if lost == "the commit":
                raise HomeError("lost")
        if lost == "the answer":
            raise HomeError("lost")

    def full(self: Vault, names: Iterable[str]) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(coordinator.ledger.ledger, "writing", failing)
        if lost == "the destruction":
            patch.setattr(Vault, "destroy", full)
        with pytest.raises((HomeError, OSError)), ledger.write() as tx:
            ledger.requests.destroy_payloads(tx, [gone.request_id])
    assert len(ledger.vault.names()) == 2

    ledger.settle_keys()

    assert len(ledger.vault.names()) == (2 if lost == "the commit" else 1)
    assert ledger.requests.payload(kept.request_id) == PAYLOAD
    assert (ledger.requests.payload(gone.request_id) == PAYLOAD) == (lost == "the commit")


def test_tables_that_cannot_be_written_anew_are_named_in_the_log(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.drop_dead_rows()
    assert caplog.messages == []
    monkeypatch.setattr(coordinator.ledger.ledger, "artefacts", Table("elsewhere", MetaData()))

    ledger.drop_dead_rows()

    assert len(caplog.messages) == (0 if database == "ledger.db" else 1)
    assert ledger.setting("home_id")
